// dockerode against the Engine API of three nodes: init, join, inspect, update, events, unlock key,
// leave, remove. Prints `ok NAME` or `not ok NAME: why` for each thing that it shows.
'use strict'
const assert = require('assert')
const Docker = require('dockerode')
const { show, until, end } = require('./show')

const nodes = JSON.parse(process.argv[2])
const [a, b, c] = nodes.map((n) => new Docker({ socketPath: n.socket }))
const [placeA, placeB, placeC] = nodes

async function find (docker, hostname) {
  const all = await docker.listNodes()
  return all.find((n) => n.Description.Hostname === hostname)
}

async function main () {
  await show('ping, version and info of a node of no cluster', async () => {
    assert.strictEqual((await a.ping()).toString(), 'OK')
    assert.ok((await a.version()).ApiVersion)
    assert.strictEqual((await a.info()).Swarm.LocalNodeState, 'inactive')
    await assert.rejects(a.listNodes(), (e) => e.statusCode === 503 && /swarm init/.test(e.message))
  })
  await show('init and join', async () => {
    const id = await a.swarmInit({ ListenAddr: placeA.peer, AdvertiseAddr: '127.0.0.1' })
    assert.strictEqual((await a.info()).Swarm.NodeID, id)
    await assert.rejects(a.swarmInit({ ListenAddr: placeA.peer }), (e) => e.statusCode === 503)
    const { JoinTokens } = await a.swarmInspect()
    const join = (docker, place, token) => docker.swarmJoin(
      { ListenAddr: place.peer, RemoteAddrs: [placeA.peer], JoinToken: token })
    await join(b, placeB, JoinTokens.Manager)
    await join(c, placeC, JoinTokens.Worker)
    await until('three nodes', async () =>
      (await a.listNodes()).filter((n) => n.Status.State === 'ready').length === 3)
    const managers = await b.listNodes({ filters: { role: ['manager'] } })
    assert.deepStrictEqual(managers.map((n) => n.Description.Hostname).sort(), ['a', 'b'])
  })
  await show('a node is inspected and updated, and an event tells of it', async () => {
    const found = await find(a, 'c')
    const stream = await a.getEvents({ filters: JSON.stringify({ type: ['node'] }) })
    let heard = ''
    stream.on('data', (bytes) => { heard += bytes })
    const node = a.getNode(found.ID)
    const { Version, Spec } = await node.inspect()
    await node.update({ ...Spec, version: Version.Index, Availability: 'pause' })
    assert.strictEqual((await node.inspect()).Spec.Availability, 'pause')
    await assert.rejects(node.update({ ...Spec, version: Version.Index }), (e) =>
      e.statusCode === 500 && /update out of sequence/.test(e.message))
    await until('the event', () => heard.includes('"availability.new":"pause"'))
    stream.destroy()
  })
  await show('settings and tokens are changed', async () => {
    const before = await a.swarmInspect()
    before.Spec.EncryptionConfig.AutoLockManagers = true
    await a.swarmUpdate({ version: before.Version.Index, rotateWorkerToken: true, ...before.Spec })
    const after = await a.swarmInspect()
    assert.notStrictEqual(after.JoinTokens.Worker, before.JoinTokens.Worker)
    assert.strictEqual(after.JoinTokens.Manager, before.JoinTokens.Manager)
    assert.strictEqual(after.Spec.EncryptionConfig.AutoLockManagers, true)
  })
  await show('a worker leaves and is removed', async () => {
    const { ID } = await find(a, 'c')
    await c.swarmLeave({})
    await until('c to be down', async () => (await find(a, 'c')).Status.State === 'down')
    await a.getNode(ID).remove()
    assert.strictEqual(await find(a, 'c'), undefined)
    await assert.rejects(a.getNode(ID).inspect(), (e) => e.statusCode === 404)
    await assert.rejects(a.swarmLeave({}), (e) => e.statusCode === 503)
  })
}

end(main())
