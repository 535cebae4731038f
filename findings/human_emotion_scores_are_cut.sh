#!/usr/bin/env bash
# @vladmandic/human 3.3.6: the scores of emotions are cut to two digits, so they do not sum to 1 and small ones are 0.
#
# The emotion network ends in a softmax, and `minConfidence: 0` asks for all seven emotions. Each score is returned as
# trunc(100 p) / 100 and at most 0.99: the sum of the seven is up to 0.07 too small, an emotion below 0.01 is 0, and no
# answer is ever surer than 0.99. Logarithms, entropies, calibration and the mean of several models take the scores for
# probabilities. They must be normalised, and a score of 0 means "below 0.01".
#
# Run: bash findings/human_emotion_scores_are_cut.sh
# (needs node and npm; about 0.4 GB in a temporary folder; exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet scikit-image==0.25.2 numpy==2.4.6
npm install --prefix "$folder" --ignore-scripts --no-audit --no-fund --silent @vladmandic/human@3.3.6 @tensorflow/tfjs@4.22.0 \
    @tensorflow/tfjs-backend-wasm@4.22.0
cd "$folder"
# The upper left of scikit-image's portrait of an astronaut: one face, 224 x 224 pixels.
venv/bin/python -c "
from skimage.data import astronaut
astronaut()[0:224, 110:334].tofile('face.rgb')"
cat > scores.cjs <<'NODE'
const fs = require('fs');
const path = require('path');
const { fileURLToPath, pathToFileURL } = require('url');

async function main() {
  const tf = require('@tensorflow/tfjs-core');
  const wasm = require('@tensorflow/tfjs-backend-wasm');
  const binaries = path.join(path.dirname(require.resolve('@tensorflow/tfjs-backend-wasm/package.json')), 'dist') + path.sep;
  wasm.setWasmPaths(binaries);
  await tf.setBackend('wasm');
  await tf.ready();
  const home = path.join('node_modules', '@vladmandic', 'human');
  const { version } = JSON.parse(fs.readFileSync(path.join(home, 'package.json')));
  const { Human } = require(path.resolve(home, 'dist', 'human.node-wasm.js'));
  globalThis.fetch = async (url) => new Response(fs.readFileSync(fileURLToPath(String(url))));
  const off = { enabled: false };
  const human = new Human({
    backend: 'wasm', wasmPath: binaries, modelBasePath: String(pathToFileURL(path.resolve(home, 'models') + path.sep)),
    debug: false, cacheSensitivity: 0, filter: off,
    face: { enabled: true, emotion: { enabled: true, minConfidence: 0 }, iris: off, description: off },
    body: off, hand: off, object: off, gesture: off, segmentation: off,
  });
  await human.load();
  const pixels = new Uint8Array(fs.readFileSync('face.rgb'));
  const { face } = await human.detect(tf.tensor(pixels, [1, 224, 224, 3], 'float32'));
  // What the network itself says of one picture of noise, which is a softmax.
  const network = human.models.models.emotion;
  const [side] = network.inputs[0].shape.slice(1, 2);
  const own = await network.execute(tf.randomUniform(network.inputs[0].shape.map((n) => Math.abs(n)), -1, 1, 'float32', 0)).data();
  console.log({ human: version, faces: face.length, 'side of the network, px': side });
  console.log('human says', face[0].emotion);
  const scores = face[0].emotion.map((one) => one.score);
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  console.log('sum of the scores', sum(scores).toFixed(4), '; sum of the network for noise', sum(Array.from(own)).toFixed(4));
  const cut = scores.every((score) => Math.abs(score * 100 - Math.round(score * 100)) < 1e-9);
  const asDescribed = face.length === 1 && cut && sum(scores) < 0.999 && Math.abs(sum(Array.from(own)) - 1) < 1e-3;
  console.log(asDescribed ? 'As described: scores have two digits and sum to less than 1.' : 'This has changed.');
  process.exit(asDescribed ? 0 : 1);
}

main();
NODE
node scores.cjs
