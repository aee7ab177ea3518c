// Runs kernels by wgsl_reflect's detectRaces: node races.mjs FOLDER_OF_THE_PACKAGE KERNELS.json prints a line for each.
import { readFileSync } from 'node:fs'
const [folder, file] = process.argv.slice(2)
const { detectRaces } = await import(`${folder}/wgsl_reflect.module.js`)

// What the package cannot read: a name that it takes for a word of its own, and bits of vectors as numbers.
const readable = source => source.replace(/\bblock\b/g, 'block_').replace(/bitcast<(vec\d<[fiu]32>)>/g, '$1')

// Lanes that wait for others forever, and a text that the package cannot run, are errors.
for (const { name, source, bindings } of JSON.parse(readFileSync(file))) {
  const bound = Object.fromEntries(bindings.map(({ uniform, words, bytes }, i) => {
    // Numbers that no kernel takes for anything else: small floats.
    const length = Math.ceil((words ? words.length : bytes / 4) / 4) * 4
    const data = words ? Uint32Array.from({ length }, (_, k) => words[k] ?? 0) : Float32Array.from({ length }, (_, k) => (k % 17) / 16)
    return [i, uniform ? { uniform: data.buffer } : data.buffer]
  }))
  let found
  try {
    // What other workgroups do is the same.
    const { races, errors } = detectRaces(readable(source), 'main', [1, 1, 1], { 0: bound })
    found = [...errors, ...races.map(race => race.message)]
  } catch (error) {
    found = [`not run: ${error.message}`]
  }
  console.error(`${new Date().toISOString()} ${name}`)
  console.log(`${name}: ${found[0]?.split('\n')[0] ?? 'clean'}`)
}
