// The worker's side of the protocol in worker.py, for packages of npm.
'use strict';

const fs = require('fs');
const { createRequire } = require('module');
const path = require('path');

const modules = path.join(process.argv[2], 'node_modules');
const requireHere = createRequire(path.join(modules, 'any.js'));

// The folder of an installed package. Its files are required by path, since `exports` may leave them out.
const folderOf = (name) => path.join(modules, ...name.split('/'));
const versionOf = (name) => JSON.parse(fs.readFileSync(path.join(folderOf(name), 'package.json'))).version;

// Packages print to the standard output, which belongs to the replies.
console.log = console.info = console.debug = console.warn = console.error;

function write(message) {
  const bytes = Buffer.from(JSON.stringify(message) + '\n');
  let start = 0;
  while (start < bytes.length) {
    try {
      start += fs.writeSync(1, bytes, start);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
}

// Start TensorFlow.js on WebAssembly, with its files from the environment; returns the folder of those files.
async function startWasm(tf, wasm) {
  const folder = path.join(folderOf('@tensorflow/tfjs-backend-wasm'), 'dist') + path.sep;
  wasm.setWasmPaths(folder);
  await tf.setBackend('wasm');
  await tf.ready();
  return folder;
}

async function* requests() {
  let waiting = Buffer.alloc(0);
  let header = null;
  let parts = [];
  let size = 0;
  for await (const chunk of process.stdin) {
    parts.push(chunk);
    size += chunk.length;
    // Images come in many chunks, so join them only when there are enough.
    if (header !== null && size < header.num_bytes) continue;
    waiting = Buffer.concat(parts);
    for (;;) {
      if (header === null) {
        const end = waiting.indexOf(10);
        if (end < 0) break;
        header = JSON.parse(waiting.subarray(0, end).toString());
        header.num_bytes = header.width * header.height * 3;
        waiting = waiting.subarray(end + 1);
      }
      if (waiting.length < header.num_bytes) break;
      const pixels = waiting.subarray(0, header.num_bytes);
      waiting = waiting.subarray(header.num_bytes);
      const request = header;
      header = null;
      yield [request, pixels];
    }
    parts = [waiting];
    size = waiting.length;
  }
}

const rounded = (value, digits = 2) => Number(value.toFixed(digits));

// `annotate(pixels, width, height)` gets RGB bytes, row by row, and returns the faces.
async function serve(version, annotate) {
  write({ ready: true, version });
  for await (const [request, pixels] of requests()) {
    try {
      write({ id: request.id, faces: await annotate(pixels, request.width, request.height) });
    } catch (error) {
      write({ id: request.id, error: String((error && error.message) || error) });
    }
  }
}

module.exports = { folderOf, requireHere, rounded, serve, startWasm, versionOf };
