// Worker of the teacher `face-api`: SSD MobileNet face detector, 68 landmarks, seven expressions.
'use strict';

const path = require('path');
const { folderOf, requireHere, rounded, serve, startWasm, versionOf } = require('./protocol.cjs');

const PACKAGE = '@vladmandic/face-api';

async function main() {
  const tf = requireHere('@tensorflow/tfjs');
  await startWasm(tf, requireHere('@tensorflow/tfjs-backend-wasm'));
  const faceapi = requireHere(path.join(folderOf(PACKAGE), 'dist', 'face-api.node-wasm.js'));
  const models = path.join(folderOf(PACKAGE), 'model');
  for (const net of ['ssdMobilenetv1', 'faceLandmark68Net', 'faceExpressionNet']) {
    await faceapi.nets[net].loadFromDisk(models);
  }
  const options = new faceapi.SsdMobilenetv1Options({ minConfidence: 0.5, maxResults: 100 });

  await serve(versionOf(PACKAGE), async (pixels, width, height) => {
    const image = tf.tensor3d(new Uint8Array(pixels), [height, width, 3], 'int32');
    try {
      const found = await faceapi.detectAllFaces(image, options).withFaceLandmarks().withFaceExpressions();
      return found.map(({ detection, landmarks, expressions }) => ({
        box: [detection.box.left, detection.box.top, detection.box.right, detection.box.bottom].map((x) => rounded(x)),
        score: rounded(detection.score, 4),
        expressions: Object.fromEntries(Object.entries(expressions).map(([name, p]) => [name, rounded(p, 6)])),
        landmarks: landmarks.positions.map(({ x, y }) => [rounded(x), rounded(y)]),
      }));
    } finally {
      tf.dispose(image);
    }
  });
}

main();
