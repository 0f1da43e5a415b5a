/* /info and /version. A client prints most of docker's own fields whether they are there or not, so
 * those that tell of containers are there and say that there are none. */
#include <stdio.h>

#include "api/engine/encode.h"
#include "api/engine/route.h"

static void put_empty(struct jout *j, const char *key, char open, char close) {
    jout_key(j, key);
    jout_open(j, open);
    jout_close(j, close);
}

static void put_null(struct jout *j, const char *key) {
    jout_key(j, key);
    jout_raw(j, span_str("null"));
}

/* --- the swarm -------------------------------------------------------------------------------- */

static const char two_managers[] =
    "WARNING: Running Swarm in a two-manager configuration. This configuration provides\n"
    "         no fault tolerance, and poses a high risk to lose control over the cluster.\n"
    "         Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the\n"
    "         Swarm for fault-tolerance.";

static void put_peers(struct jout *j, const struct engine_info *i) {
    if (i->n_peers == 0) {
        put_null(j, "RemoteManagers");
        return;
    }
    jout_key(j, "RemoteManagers");
    jout_open(j, '[');
    for (unsigned at = 0; at < i->n_peers; at++) {
        jout_open(j, '{');
        jout_put_text(j, "NodeID", i->peers[at].id);
        jout_put_text(j, "Addr", i->peers[at].address);
        jout_close(j, '}');
    }
    jout_close(j, ']');
}

static void put_swarm(struct jout *j, const struct engine_info *i) {
    jout_key(j, "Swarm");
    jout_open(j, '{');
    jout_put_text(j, "NodeID", i->node_id);
    jout_put_text(j, "NodeAddr", i->address);
    jout_put_text(j, "LocalNodeState", i->state);
    jout_put_bool(j, "ControlAvailable", i->control);
    jout_put_text(j, "Error", i->error);
    put_peers(j, i);
    if (i->nodes) jout_put_number(j, "Nodes", i->nodes);
    if (i->managers) jout_put_number(j, "Managers", i->managers);
    if (i->cluster) {
        jout_key(j, "Cluster");
        engine_put_cluster(j, i->cluster);
    }
    if (i->managers == 2) {
        jout_key(j, "Warnings");
        jout_open(j, '[');
        jout_text(j, span_str(two_managers));
        jout_close(j, ']');
    }
    jout_close(j, '}');
}

/* --- the machine ------------------------------------------------------------------------------ */

static void put_containers(struct jout *j) {
    static const char *const none[] = {"Containers", "ContainersRunning", "ContainersPaused",
                                       "ContainersStopped", "Images"};
    static const char *const plugins[] = {"Volume", "Network", "Log"};
    /* Clients before 1.42 warn of each that is false; all are the kernel's, which has them. */
    static const char *const able[] = {
        "MemoryLimit", "SwapLimit", "CpuCfsPeriod",   "CpuCfsQuota",      "CPUShares",
        "CPUSet",      "PidsLimit", "IPv4Forwarding", "BridgeNfIptables", "BridgeNfIp6tables"};
    for (size_t i = 0; i < ARRAY_SIZE(none); i++)
        jout_put_number(j, none[i], 0);
    jout_put_text(j, "Driver", "");
    put_null(j, "DriverStatus");
    jout_key(j, "Plugins");
    jout_open(j, '{');
    for (size_t i = 0; i < ARRAY_SIZE(plugins); i++)
        put_empty(j, plugins[i], '[', ']');
    put_null(j, "Authorization");
    jout_close(j, '}');
    for (size_t i = 0; i < ARRAY_SIZE(able); i++)
        jout_put_bool(j, able[i], true);
}

static void put_commit(struct jout *j, const char *key) {
    jout_key(j, key);
    jout_open(j, '{');
    jout_put_text(j, "ID", "");
    jout_close(j, '}');
}

static void put_machine(struct jout *j, const struct engine_machine *m) {
    static const char *const empty[] = {
        "LoggingDriver", "CgroupDriver", "IndexServerAddress", "HttpProxy",  "HttpsProxy",
        "NoProxy",       "Isolation",    "DefaultRuntime",     "InitBinary", "OSVersion"};
    jout_put_bool(j, "Debug", false);
    engine_put_time(j, "SystemTime", m->now_ns);
    jout_put_text(j, "KernelVersion", m->kernel);
    jout_put_text(j, "OperatingSystem", m->system);
    jout_put_text(j, "OSType", "linux");
    jout_put_text(j, "Architecture", m->arch);
    put_null(j, "RegistryConfig");
    jout_put_number(j, "NCPU", m->cpus);
    jout_put_number(j, "MemTotal", m->memory);
    put_null(j, "GenericResources");
    jout_put_text(j, "DockerRootDir", m->data);
    jout_put_text(j, "Name", m->name);
    put_empty(j, "Labels", '[', ']');
    jout_put_bool(j, "ExperimentalBuild", false);
    jout_put_text(j, "ServerVersion", CONCLAVE_VERSION);
    put_null(j, "Runtimes");
    for (size_t i = 0; i < ARRAY_SIZE(empty); i++)
        jout_put_text(j, empty[i], "");
    jout_put_bool(j, "LiveRestoreEnabled", false);
    put_commit(j, "ContainerdCommit");
    put_commit(j, "RuncCommit");
    put_commit(j, "InitCommit");
    put_empty(j, "SecurityOptions", '[', ']');
    put_null(j, "Warnings");
}

void engine_put_info(struct jout *j, const struct engine_machine *m, const struct engine_info *i) {
    jout_open(j, '{');
    jout_put_text(j, "ID", m->id);
    put_containers(j);
    put_machine(j, m);
    put_swarm(j, i);
    jout_close(j, '}');
}

/* --- version ---------------------------------------------------------------------------------- */

static const char *go_arch(const char *arch) {
    if (strcmp(arch, "x86_64") == 0) return "amd64";
    return strcmp(arch, "aarch64") == 0 ? "arm64" : arch;
}

static void put_versions(struct jout *j, const struct engine_machine *m) {
    jout_put_text(j, "ApiVersion", ENGINE_API);
    jout_put_text(j, "MinAPIVersion", ENGINE_API_MIN);
    jout_put_text(j, "GitCommit", "");
    jout_put_text(j, "GoVersion", "");
    jout_put_text(j, "Os", "linux");
    jout_put_text(j, "Arch", go_arch(m->arch));
    jout_put_text(j, "KernelVersion", m->kernel);
    jout_put_text(j, "BuildTime", "");
}

void engine_put_version(struct jout *j, const struct engine_machine *m) {
    jout_open(j, '{');
    jout_key(j, "Platform");
    jout_open(j, '{');
    jout_put_text(j, "Name", "Conclave " CONCLAVE_VERSION);
    jout_close(j, '}');
    jout_key(j, "Components");
    jout_open(j, '[');
    jout_open(j, '{');
    jout_put_text(j, "Name", "Engine");
    jout_put_text(j, "Version", CONCLAVE_VERSION);
    jout_key(j, "Details");
    jout_open(j, '{');
    put_versions(j, m);
    jout_put_text(j, "Experimental", "false");
    jout_close(j, '}');
    jout_close(j, '}');
    jout_close(j, ']');
    jout_put_text(j, "Version", CONCLAVE_VERSION);
    put_versions(j, m);
    jout_close(j, '}');
}
