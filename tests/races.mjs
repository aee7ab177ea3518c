// Runs kernels by wgsl_reflect's detectRaces on all processors: node races.mjs FOLDER_OF_THE_PACKAGE KERNELS.json prints a line for
// each.
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'

// What the package cannot read: a name that it takes for a word of its own, and bits of vectors as numbers.
const readable = source => source.replace(/\bblock\b/g, 'block_').replace(/bitcast<(vec\d<[fiu]32>)>/g, '$1')

// Lanes that wait for others forever, and a text that the package cannot run, are errors.
const found = (detectRaces, { source, bindings }) => {
  const bound = Object.fromEntries(bindings.map(({ uniform, words, bytes }, i) => {
    // Numbers that no kernel takes for anything else: small floats.
    const length = Math.ceil((words ? words.length : bytes / 4) / 4) * 4
    const data = words ? Uint32Array.from({ length }, (_, k) => words[k] ?? 0) : Float32Array.from({ length }, (_, k) => (k % 17) / 16)
    return [i, uniform ? { uniform: data.buffer } : data.buffer]
  }))
  try {
    // What other workgroups do is the same.
    const { races, errors } = detectRaces(readable(source), 'main', [1, 1, 1], { 0: bound })
    return [...errors, ...races.map(race => race.message)][0]?.split('\n')[0] ?? 'clean'
  } catch (error) {
    return `not run: ${error.message}`
  }
}

if (isMainThread) {
  const [folder, file] = process.argv.slice(2)
  const kernels = JSON.parse(readFileSync(file))
  const results = Array(kernels.length)
  let next = 0
  const give = worker => next < kernels.length ? worker.postMessage([next, kernels[next++]]) : worker.terminate()
  const workers = Array.from({ length: availableParallelism() }, () => new Promise((done, failed) => {
    const worker = new Worker(new URL(import.meta.url), { workerData: folder })
    worker.on('message', ([i, result]) => {
      results[i] = result
      console.error(`${new Date().toISOString()} ${kernels[i].name}`)
      give(worker)
    }).on('error', failed).on('exit', done)
    give(worker)
  }))
  await Promise.all(workers)
  kernels.forEach(({ name }, i) => console.log(`${name}: ${results[i]}`))
} else {
  const { detectRaces } = await import(`${workerData}/wgsl_reflect.module.js`)
  parentPort.on('message', ([i, kernel]) => parentPort.postMessage([i, found(detectRaces, kernel)]))
}
