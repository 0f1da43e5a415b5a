/* See address.h. Interfaces come from libuv, which lists those that are up. */
#include "api/engine/address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

#include "raft/loop.h"

static bool is_ip(const char *host) {
    uint8_t bytes[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

static bool is_wildcard(const char *host) {
    return strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

static void interface_ip(const uv_interface_address_t *a, char out[ADDRESS_MAX]) {
    if (a->address.address4.sin_family == AF_INET)
        (void)uv_ip4_name(&a->address.address4, out, ADDRESS_MAX);
    else
        (void)uv_ip6_name(&a->address.address6, out, ADDRESS_MAX);
}

static bool is_four(const uv_interface_address_t *a) {
    return a->address.address4.sin_family == AF_INET;
}

/* Only good on its own wire. */
static bool is_link_local(const uv_interface_address_t *a) {
    return !is_four(a) && IN6_IS_ADDR_LINKLOCAL(&a->address.address6.sin6_addr);
}

/* The address of an interface, of IPv4 if it has one. ERR_NOT_FOUND: there is no such interface. */
static RESULT of_interface(const char *name, char out[ADDRESS_MAX], struct why *why) {
    uv_interface_address_t *all;
    int n = 0;
    const uv_interface_address_t *found = NULL;
    enum err e = ERR_NOT_FOUND;
    if (uv_interface_addresses(&all, &n) != 0) return ERR_NOT_FOUND;
    for (int i = 0; i < n && e != ERR_INVALID; i++) {
        if (strcmp(all[i].name, name) != 0 || is_link_local(&all[i])) continue;
        if (found && is_four(found) == is_four(&all[i]))
            e = fail_with(why, ERR_INVALID, "interface %s has more than one IPv%c address", name,
                          is_four(found) ? '4' : '6');
        else if (e == ERR_NOT_FOUND || is_four(&all[i]))
            e = OK;
        if (!found || is_four(&all[i])) found = &all[i];
    }
    if (e == OK) interface_ip(found, out);
    uv_free_interface_addresses(all, n);
    return e;
}

static RESULT refuse_choice(const uv_interface_address_t *a, const uv_interface_address_t *b,
                            struct why *why) {
    char first[ADDRESS_MAX], second[ADDRESS_MAX];
    interface_ip(a, first);
    interface_ip(b, second);
    if (strcmp(a->name, b->name) == 0)
        return fail_with(why, ERR_INVALID,
                         "could not choose an IP address to advertise since this system has "
                         "multiple addresses on interface %s (%s and %s) - specify one with "
                         "--advertise-addr",
                         a->name, first, second);
    return fail_with(why, ERR_INVALID,
                     "could not choose an IP address to advertise since this system has multiple "
                     "addresses on different interfaces (%s on %s and %s on %s) - specify one with "
                     "--advertise-addr",
                     first, a->name, second, b->name);
}

/* The machine's one address that others can reach; of an interface with both, that of IPv4. */
static RESULT of_machine(char out[ADDRESS_MAX], struct why *why) {
    uv_interface_address_t *all;
    int n = 0;
    const uv_interface_address_t *found = NULL;
    enum err e = OK;
    if (uv_interface_addresses(&all, &n) != 0) n = 0;
    for (int i = 0; i < n && e == OK; i++) {
        const uv_interface_address_t *a = &all[i];
        if (a->is_internal || is_link_local(a)) continue;
        bool pair = found && strcmp(found->name, a->name) == 0 && is_four(found) != is_four(a);
        if (found && !pair)
            e = refuse_choice(found, a, why);
        else if (!found || is_four(a))
            found = a;
    }
    if (e == OK && !found)
        e = fail_with(why, ERR_INVALID,
                      "could not find the system's IP address - specify one with "
                      "--advertise-addr");
    if (e == OK) interface_ip(found, out);
    if (n > 0) uv_free_interface_addresses(all, n);
    return e;
}

/* The address that packets to the manager would come from; nothing is sent. */
static bool towards(const char *remote, char out[ADDRESS_MAX]) {
    struct address parts;
    struct sockaddr_storage at;
    char text[ADDRESS_MAX];
    socklen_t size = sizeof at;
    if (address_split(remote, &parts, NULL) != OK || address_numeric(&parts, &at) != OK)
        return false;
    int fd = socket(at.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool known = fd >= 0 &&
                 connect(fd, (const struct sockaddr *)&at,
                         at.ss_family == AF_INET ? sizeof(struct sockaddr_in)
                                                 : sizeof(struct sockaddr_in6)) == 0 &&
                 getsockname(fd, (struct sockaddr *)&at, &size) == 0;
    if (fd >= 0) (void)close(fd);
    if (!known) return false;
    address_format((const struct sockaddr *)&at, text);
    if (address_split(text, &parts, NULL) != OK) return false;
    memcpy(out, parts.host, sizeof parts.host);
    return true;
}

RESULT engine_full_address(const char *text, char out[ADDRESS_MAX], struct why *why) {
    struct address parts;
    char wide[ADDRESS_MAX + 16];
    const char *colon = strchr(text, ':');
    if (text[0] == '[')
        (void)snprintf(wide, sizeof wide, strstr(text, "]:") ? "%s" : "%s:2377", text);
    else if (colon && strchr(colon + 1, ':'))
        (void)snprintf(wide, sizeof wide, "[%s]:2377", text);
    else if (colon)
        (void)snprintf(wide, sizeof wide, "%s%s", colon == text ? "0.0.0.0" : "", text);
    else
        (void)snprintf(wide, sizeof wide, "%s:2377", text);
    TRY(address_split(wide, &parts, why));
    (void)snprintf(out, ADDRESS_MAX, "%.*s", ADDRESS_MAX - 1, wide);
    return OK;
}

/* An IP address, or that of the interface of this name. */
static RESULT host_of(const char *host, bool advertised, char out[ADDRESS_MAX], struct why *why) {
    enum err e = of_interface(host, out, why);
    if (e != ERR_NOT_FOUND) return e;
    if (!is_ip(host) || (advertised && is_wildcard(host)))
        return fail_with(why, ERR_INVALID,
                         advertised ? "advertise address must be a non-zero IP address or network "
                                      "interface (with optional port number)"
                                    : "listen address must be an IP address or network interface "
                                      "(with optional port number)");
    (void)snprintf(out, ADDRESS_MAX, "%s", host);
    return OK;
}

static RESULT listen_at(const struct engine_wish *wish, struct address *out, struct why *why) {
    char text[ADDRESS_MAX], host[ADDRESS_MAX];
    const char *said = wish->listen[0] ? wish->listen : ENGINE_LISTEN_DEFAULT;
    enum err e = engine_full_address(said, text, why);
    if (e != OK) return fail_with(why, ERR_INVALID, "could not parse listen address %.128s", said);
    if (wish->peer[0] && strcmp(text, ENGINE_LISTEN_DEFAULT) == 0)
        return address_split(wish->peer, out, why);
    TRY(address_split(text, out, why));
    TRY(host_of(out->host, false, host, why));
    (void)snprintf(out->host, sizeof out->host, "%s", host);
    return OK;
}

static RESULT said_advertise(const char *said, const struct address *listen, char out[ADDRESS_MAX],
                             struct why *why) {
    char text[ADDRESS_MAX];
    struct address parts;
    TRY(engine_full_address(said, text, why));
    TRY(address_split(text, &parts, why));
    if (strcmp(text, said) == 0 && strcmp(parts.port, listen->port) != 0)
        return fail_with(why, ERR_INVALID,
                         "the port that is advertised, %s, is not the one that is listened on, %s",
                         parts.port, listen->port);
    return host_of(parts.host, true, out, why);
}

static RESULT advertised(const struct engine_wish *wish, const struct address *listen,
                         char out[ADDRESS_MAX], struct why *why) {
    if (wish->advertise[0]) return said_advertise(wish->advertise, listen, out, why);
    if (wish->own_advertise[0]) {
        (void)snprintf(out, ADDRESS_MAX, "%s", wish->own_advertise);
        return OK;
    }
    if (!is_wildcard(listen->host)) return OK;
    if (wish->remote && towards(wish->remote, out)) return OK;
    return of_machine(out, why);
}

RESULT engine_place(const struct engine_wish *wish, struct engine_place *out, struct why *why) {
    struct address listen = {0};
    *out = (struct engine_place){0};
    TRY(listen_at(wish, &listen, why));
    address_join(listen.host, (unsigned)strtoul(listen.port, NULL, 10), out->listen);
    return advertised(wish, &listen, out->host, why);
}
