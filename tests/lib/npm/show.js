// What the programs beside this one share: `ok NAME` or `not ok NAME: why` for each thing that is
// shown, waiting for a condition, and the exit code.
'use strict'

const WAIT_MS = 45000
let failed = 0

async function show (name, body) {
  try {
    await body()
    console.log(`ok ${name}`)
  } catch (error) {
    failed++
    console.log(`not ok ${name}: ${String(error.message || error).split('\n')[0]}`)
  }
}

async function until (what, condition) {
  const end = Date.now() + WAIT_MS
  let last = ''
  while (Date.now() < end) {
    try {
      if (await condition()) return
    } catch (error) {
      last = ` (${error.message})`
    }
    await new Promise((resolve) => setTimeout(resolve, 50)) // wait-until: the condition
  }
  throw new Error(`waited for ${what}${last}`)
}

// When all is shown, the program ends.
function end (shown) {
  shown.then(() => process.exit(failed ? 1 : 0), (error) => {
    console.log(`not ok dockerode: ${error.stack}`)
    process.exit(1)
  })
}

module.exports = { show, until, end }
