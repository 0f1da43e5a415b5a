// The npm package etcd3 as its users use it, against the servers that the first argument names
// (JSON: hosts, and ca, cert and key as file names). `features` prints `ok NAME` or `not ok NAME: why` for
// each thing that it tries; `survive` writes, watches and keeps a lease until a line arrives on
// standard input, saying `acked N` now and then, and closes with what it found as JSON.
'use strict';
const assert = require('assert');
const fs = require('fs');
const { Etcd3, Range } = require('etcd3');

const [, , configText, mode] = process.argv;
const config = JSON.parse(configText);
const CALL_MS = 20000;
const RETRY_MS = 20;
const SAY_EVERY = 10;

function connect(extra = {}) {
  const options = { hosts: config.hosts, ...extra };
  if (config.ca) {
    options.credentials = {
      rootCertificate: fs.readFileSync(config.ca),
      privateKey: fs.readFileSync(config.key),
      certChain: fs.readFileSync(config.cert),
    };
  }
  options.defaultCallOptions = (context) =>
    context.isStream ? {} : { deadline: Date.now() + CALL_MS };
  return new Etcd3(options);
}

const once = (emitter, event) => new Promise((resolve) => emitter.once(event, resolve));

async function keysAndValues(client) {
  await client.put('js/a').value('1');
  await client.put('js/b').value(Buffer.from([0, 255, 10]));
  await client.put('js/c').value('3');
  assert.strictEqual(await client.get('js/a').string(), '1');
  assert.deepStrictEqual(await client.get('js/b').buffer(), Buffer.from([0, 255, 10]));
  assert.strictEqual(await client.get('js/none').string(), null);
  assert.deepStrictEqual(await client.getAll().prefix('js/').keys(), ['js/a', 'js/b', 'js/c']);
  const sorted = await client.getAll().prefix('js/').sort('Key', 'Descend').limit(2).keys();
  assert.deepStrictEqual(sorted, ['js/c', 'js/b']);
  assert.strictEqual(await client.getAll().prefix('js/').count(), 3);
  const previous = await client.put('js/a').value('2').getPrevious();
  assert.strictEqual(previous.value.toString(), '1');
  assert.strictEqual((await client.delete().key('js/a')).deleted, '1');
  assert.strictEqual((await client.delete().prefix('js/')).deleted, '2');
}

async function transactions(client) {
  await client.put('jt').value('old');
  const swap = () => client.if('jt', 'Value', '==', 'old')
    .then(client.put('jt').value('new'), client.get('jt'))
    .else(client.get('jt')).commit();
  assert.strictEqual((await swap()).succeeded, true);
  const second = await swap();
  assert.strictEqual(second.succeeded, false);
  assert.strictEqual(second.responses[0].response_range.kvs[0].value.toString(), 'new');
  const total = await client.stm().transact(async (tx) => {
    const n = Number((await tx.get('jt/n').string()) || 0) + 1;
    await tx.put('jt/n').value(n);
    return n;
  });
  assert.strictEqual(total, 1);
  await client.delete().prefix('jt');
}

async function watches(client) {
  const watcher = await client.watch().prefix('jw/').withPreviousKV().create();
  const seen = [];
  watcher.on('data', (answer) => seen.push(...answer.events));
  await client.put('jw/a').value('1');
  await client.put('jw/a').value('2');
  await client.delete().key('jw/a');
  while (seen.length < 3) await once(watcher, 'data');
  assert.deepStrictEqual(seen.map((e) => e.type), ['Put', 'Put', 'Delete']);
  assert.strictEqual(seen[1].prev_kv.value.toString(), '1');
  const old = await client.watch().key('jw/a').startRevision(seen[0].kv.mod_revision).create();
  const first = await once(old, 'put');
  assert.strictEqual(first.value.toString(), '1');
  await watcher.cancel();
  await old.cancel();
}

async function leases(client) {
  const lease = client.lease(30, { autoKeepAlive: false });
  await lease.put('jl').value('leased');
  const id = await lease.grant();
  const info = await client.leaseClient.leaseTimeToLive({ ID: id, keys: true });
  assert.strictEqual(info.keys[0].toString(), 'jl');
  assert.strictEqual(info.grantedTTL, '30');
  await lease.keepaliveOnce();
  assert.ok((await client.leaseClient.leaseLeases()).leases.some((l) => l.ID === id));
  await lease.revoke();
  assert.strictEqual(await client.get('jl').string(), null);
}

async function locks(client) {
  const lock = client.lock('jlock').ttl(20);
  await lock.acquire();
  const other = client.lock('jlock');
  await assert.rejects(other.acquire());
  await lock.release();
  await client.lock('jlock').do(async () => 1);
}

async function elections(client) {
  const election = client.election('jchair', 20);
  const campaign = election.campaign('one');
  await campaign.wait();
  assert.strictEqual(await election.leader(), 'one');
  const observer = await election.observe();
  const changed = once(observer, 'change');
  await campaign.proclaim('two');
  assert.strictEqual(await changed, 'two');
  await observer.cancel();
  await campaign.resign();
}

async function cluster(client) {
  const { members } = await client.cluster.memberList({});
  assert.strictEqual(members.length, config.hosts.length);
  const status = await client.maintenance.status();
  assert.match(status.version, /^3\.\d+\.\d+/);
  assert.ok(members.some((m) => m.ID === status.leader));
  await client.maintenance.hash();
  await client.maintenance.alarm({ action: 'Get' });
  await client.maintenance.defragment();
  const stream = await client.maintenance.snapshot();
  let size = 0;
  await new Promise((resolve, reject) => {
    stream.on('data', (part) => { size += part.blob.length; });
    stream.on('end', resolve);
    stream.on('error', reject);
  });
  assert.ok(size > 32, `a snapshot of ${size} bytes`);
}

async function errors(client) {
  const { EtcdLeaseInvalidError, GRPCInvalidArgumentError } = require('etcd3');
  await assert.rejects(client.kv.put({ key: Buffer.alloc(0) }), /key is not provided/);
  await assert.rejects(client.put('x').value('y').lease('123456'), EtcdLeaseInvalidError);
  await assert.rejects(client.kv.put({ key: Buffer.from('none'), ignore_value: true }), /key not found/);
  assert.ok(GRPCInvalidArgumentError);
}

/* Waits until the member serves whoever has no name. */
async function served(host) {
  const one = connect({ hosts: [host] });
  for (const end = Date.now() + CALL_MS; ;) {
    try {
      await one.get('ju/a').string();
      break;
    } catch (error) {
      if (!/user name is empty/.test(error.message) || Date.now() > end) throw error;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
  one.close();
}

async function users(client) {
  const root = await client.user('root').create('rootpw');
  await root.addRole(await client.role('root').create());
  const reader = await client.role('jreader').create();
  await reader.grant({ permission: 'Readwrite', range: Range.prefix('ju/') });
  const user = await client.user('juser').create('pw');
  await user.addRole(reader);
  await client.auth.authEnable();
  const mine = connect({ auth: { username: 'juser', password: 'pw' } });
  const admin = connect({ auth: { username: 'root', password: 'rootpw' } });
  try {
    await mine.put('ju/a').value('1');
    assert.strictEqual(await mine.get('ju/a').string(), '1');
    await assert.rejects(mine.get('other').string(), /permission denied/);
    const wrong = connect({ auth: { username: 'juser', password: 'bad' } });
    await assert.rejects(wrong.get('ju/a').string());
    wrong.close();
  } finally {
    await admin.auth.authDisable();
  }
  mine.close();
  admin.close();
  for (const host of config.hosts) await served(host); // a member hears of it with the next heartbeat
  await client.user('juser').delete();
  await client.user('root').delete();
  await client.role('jreader').delete();
  await client.role('root').delete();
}

async function features() {
  let failed = 0;
  for (const feature of [keysAndValues, transactions, watches, leases, locks, elections, cluster,
    errors, users]) {
    const client = connect(); // one that errors lock out takes no other feature along
    try {
      await feature(client);
      console.log(`ok ${feature.name}`);
    } catch (error) {
      failed += 1;
      const why = String(error.stack).split('\n').slice(0, 4).join(' | ');
      console.log(`not ok ${feature.name}: ${why}`);
    }
    client.close();
  }
  process.exit(failed ? 1 : 0);
}

// --- going on without the leader ---

async function survive() {
  const client = connect();
  const lease = client.lease(config.ttl);
  const leaseId = await lease.grant();
  await lease.put('survive/leased').value('x');
  const events = [];
  const watcher = await client.watch().prefix('survive/n').create();
  watcher.on('put', (kv) => events.push([kv.key.toString(), Number(kv.mod_revision)]));
  let going = true;
  let longest = 0;
  process.stdin.once('data', () => { going = false; });
  const acked = [];
  while (going) {
    const key = `survive/n${String(acked.length).padStart(6, '0')}`;
    const start = Date.now();
    for (;;) {
      try {
        await client.put(key).value(key);
        break;
      } catch (error) {
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
    longest = Math.max(longest, Date.now() - start);
    acked.push(key);
    if (acked.length % SAY_EVERY === 0) console.log(`acked ${acked.length}`);
  }
  const held = new Set(await client.getAll().prefix('survive/n').keys());
  const deadline = Date.now() + CALL_MS;
  while (new Set(events.map((e) => e[0])).size < acked.length && Date.now() < deadline)
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  const seen = new Set(events.map((e) => e[0]));
  const ordered = events.every((e, i) => i === 0 || events[i - 1][1] < e[1]);
  const info = await client.leaseClient.leaseTimeToLive({ ID: leaseId });
  console.log(JSON.stringify({
    acked: acked.length,
    lost: acked.filter((k) => !held.has(k)).length,
    unseen: acked.filter((k) => !seen.has(k)).length,
    ordered,
    leaseTtl: Number(info.TTL),
    longestMs: longest,
  }));
  process.exit(0);
}

(mode === 'survive' ? survive : features)().catch((error) => {
  console.log(`not ok npm client: ${String(error.stack).split('\n').join(' | ')}`);
  process.exit(1);
});
