// Worker of the teacher `human`: BlazeFace detector, face mesh of 468 points, seven expressions.
'use strict';

const fs = require('fs');
const path = require('path');
const { fileURLToPath, pathToFileURL } = require('url');
const { folderOf, requireHere, rounded, serve, startWasm, versionOf } = require('./protocol.cjs');

const PACKAGE = '@vladmandic/human';

async function main() {
  const tf = requireHere('@tensorflow/tfjs-core');
  const wasmPath = await startWasm(tf, requireHere('@tensorflow/tfjs-backend-wasm'));
  const { Human } = requireHere(path.join(folderOf(PACKAGE), 'dist', 'human.node-wasm.js'));
  const models = path.join(folderOf(PACKAGE), 'models');
  // The package loads its models by `fetch`, which reads no files.
  globalThis.fetch = async (url) => new Response(fs.readFileSync(fileURLToPath(String(url))));
  const off = { enabled: false };
  const human = new Human({
    backend: 'wasm',
    wasmPath,
    modelBasePath: String(pathToFileURL(models + path.sep)),
    debug: false,
    cacheSensitivity: 0, // each image is a new one, not the next frame of a video
    filter: off,
    face: {
      enabled: true,
      detector: { rotation: false, maxDetected: 20, minConfidence: 0.4, skipFrames: 0, skipTime: 0 },
      mesh: { enabled: true },
      emotion: { enabled: true, minConfidence: 0, skipFrames: 0, skipTime: 0 },
      iris: off,
      description: off,
      antispoof: off,
      liveness: off,
    },
    body: off,
    hand: off,
    object: off,
    gesture: off,
    segmentation: off,
  });
  await human.load();

  await serve(versionOf(PACKAGE), async (pixels, width, height) => {
    const image = tf.tensor(new Uint8Array(pixels), [1, height, width, 3], 'float32');
    try {
      const { face, error } = await human.detect(image);
      if (error) throw new Error(error);
      return face.map(({ box: [left, top, w, h], score, emotion, mesh }) => ({
        box: [left, top, left + w, top + h].map((x) => rounded(x)),
        score: rounded(score, 4),
        expressions: Object.fromEntries(emotion.map((one) => [one.emotion, rounded(one.score, 6)])),
        landmarks: mesh.map(([x, y]) => [rounded(x), rounded(y)]),
      }));
    } finally {
      tf.dispose(image);
    }
  });
}

main();
