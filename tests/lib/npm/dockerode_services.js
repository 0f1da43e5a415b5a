// dockerode against the Engine API: secrets, configs, services and tasks. Prints `ok NAME` or
// `not ok NAME: why` for each thing that it shows.
'use strict'
const assert = require('assert')
const Docker = require('dockerode')
const { show, until, end } = require('./show')

const VALUE = 'a-value-that-is-nobody\'s-business'
const docker = new Docker({ socketPath: process.argv[2] })
const coded = (text) => Buffer.from(text).toString('base64')

const refused = (promise, status, sentence) => assert.rejects(promise, (e) => {
  assert.strictEqual(e.statusCode, status, `${e.statusCode} ${e.message}`)
  assert.match(e.message, sentence)
  return true
})

const running = async (service) =>
  (await docker.listTasks({ filters: { service: [service], 'desired-state': ['running'] } }))
    .filter((t) => t.Status.State === 'running')

async function main () {
  let secret, config, service
  await show('a secret is made, listed, inspected; its labels change, its value stays inside', async () => {
    const made = await docker.createSecret({ Name: 'pw', Labels: { a: '1' }, Data: coded(VALUE) })
    secret = docker.getSecret(made.id)
    await refused(docker.createSecret({ Name: 'pw', Data: coded('x') }), 409, /already exists/)
    const { Version, Spec } = await secret.inspect()
    assert.deepStrictEqual(Spec, { Name: 'pw', Labels: { a: '1' } })
    await secret.update({ ...Spec, version: Version.Index, Labels: { b: '2' } })
    await refused(secret.update({ ...Spec, version: Version.Index }), 500, /update out of sequence/)
    const list = await docker.listSecrets({ filters: { label: ['b=2'] } })
    assert.deepStrictEqual(list.map((s) => s.ID), [secret.id])
    assert.ok(!JSON.stringify(list).includes(coded(VALUE).slice(0, 20)))
    await refused(docker.getSecret('nobody').inspect(), 404, /secret nobody not found/)
  })
  await show('a config is made and read', async () => {
    config = docker.getConfig((await docker.createConfig({ Name: 'cf', Data: coded('text') })).id)
    const { Version, Spec } = await config.inspect()
    assert.strictEqual(Spec.Data, coded('text'))
    await config.update({ ...Spec, version: Version.Index, Labels: { c: '3' } }) // the data as it is
    assert.deepStrictEqual((await config.inspect()).Spec.Labels, { c: '3' })
    assert.strictEqual((await docker.listConfigs()).length, 1)
  })
  await show('a service runs with them and its tasks are told of', async () => {
    const File = { Name: 'f', UID: '0', GID: '0', Mode: 0o444 }
    const made = await docker.createService({
      Name: 'web',
      TaskTemplate: {
        ContainerSpec: {
          Image: 'host',
          Command: ['sleep', '1000'],
          StopGracePeriod: 1e9,
          Secrets: [{ SecretID: secret.id, SecretName: 'pw', File }],
          Configs: [{ ConfigID: config.id, ConfigName: 'cf', File: { ...File, Name: '/cf' } }]
        },
        RestartPolicy: { Condition: 'any', Delay: 1e7 }
      },
      Mode: { Replicated: { Replicas: 2 } }
    })
    service = docker.getService(made.id)
    await until('two tasks', async () => (await running('web')).length === 2)
    const [task] = await running(service.id)
    const found = await docker.getTask(task.ID).inspect()
    assert.strictEqual(found.ServiceID, service.id)
    assert.ok(found.NodeID && found.Spec.ContainerSpec.Secrets.length === 1)
    const [listed] = await docker.listServices({ status: true })
    assert.deepStrictEqual([listed.ServiceStatus.RunningTasks, listed.ServiceStatus.DesiredTasks], [2, 2])
    await refused(secret.remove(), 400, /in use by the following service: web/)
    await refused(config.remove(), 400, /in use by the following service: web/)
    await refused(service.logs({ stdout: true }), 501, /there are no logs/)
  })
  await show('a service is updated, scaled and removed', async () => {
    const { Version, Spec } = await service.inspect()
    const before = (await running('web')).map((t) => t.ID)
    Spec.TaskTemplate.ContainerSpec.Env = ['A=b']
    Spec.Mode.Replicated.Replicas = 3
    await service.update({ ...Spec, version: Version.Index })
    await refused(service.update({ ...Spec, version: Version.Index }), 500, /update out of sequence/)
    await until('three other tasks', async () => {
      const now = await running('web')
      return now.length === 3 && !now.some((t) => before.includes(t.ID))
    })
    await service.remove()
    await refused(service.inspect(), 404, /not found/)
    await until('no tasks', async () => (await docker.listTasks()).length === 0)
    await secret.remove()
    await config.remove()
    assert.deepStrictEqual([await docker.listSecrets(), await docker.listConfigs()], [[], []])
  })
}

end(main())
