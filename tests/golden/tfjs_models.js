// Models of TensorFlow.js in its layers format, with what it computes: tests/keras-files runs it.
//
//     NODE_PATH=…/node_modules node tests/golden/tfjs_models.js FOLDER     # with @tensorflow/tfjs 4.22.0
//
// Each model goes to FOLDER/NAME with its inputs x0, … and outputs y0, … in FOLDER/NAME.safetensors. Names that end in
// _float16, _uint8 and _uint16 have quantised weights, in shards, as the converter writes them. With names behind FOLDER
// it records what the models of these names compute that are there.
const fs = require("fs");
const path = require("path");
const tf = require("@tensorflow/tfjs");

const folder = process.argv[2];
const L = tf.layers;
let seed = 1;
const random = () => {
  seed = (seed * 1103515245 + 12345) % 2147483648;
  return (seed / 2147483648) * 2 - 1;
};

const sequential = (...layers) => tf.sequential({ layers });
const functional = (shape, build) => {
  const x = tf.input({ shape });
  return tf.model({ inputs: x, outputs: build(x) });
};
const models = {
  dense: () => sequential(L.dense({ units: 4, inputShape: [5], activation: "relu" }), L.dense({ units: 3, activation: "softmax" })),
  convolutional: () =>
    sequential(
      L.conv2d({ inputShape: [12, 12, 1], filters: 4, kernelSize: 3, activation: "relu" }),
      L.maxPooling2d({ poolSize: 2 }),
      L.batchNormalization({}),
      L.flatten(),
      L.dropout({ rate: 0.5 }),
      L.dense({ units: 3, activation: "softmax", kernelInitializer: "varianceScaling" }),
    ),
  depthwise: () => sequential(L.depthwiseConv2d({ inputShape: [6, 6, 2], kernelSize: 3, depthMultiplier: 2 }), L.globalAveragePooling2d({})),
  separable: () => sequential(L.separableConv2d({ inputShape: [6, 6, 2], filters: 3, kernelSize: 3 }), L.globalMaxPooling2d({})),
  transposed: () => sequential(L.conv2dTranspose({ inputShape: [4, 4, 2], filters: 3, kernelSize: 3, strides: 2, padding: "same" })),
  conv1d: () => sequential(L.conv1d({ inputShape: [9, 3], filters: 4, kernelSize: 3 }), L.averagePooling1d({ poolSize: 2 }), L.flatten()),
  simple_rnn: () => sequential(L.simpleRNN({ inputShape: [5, 3], units: 4 })),
  lstm: () => sequential(L.lstm({ inputShape: [5, 3], units: 4, returnSequences: true }), L.lstm({ units: 3 })),
  gru: () => sequential(L.gru({ inputShape: [5, 3], units: 4 })),
  bidirectional: () => sequential(L.bidirectional({ inputShape: [5, 3], layer: L.lstm({ units: 4, returnSequences: true }), mergeMode: "concat" })),
  rnn_of_a_cell: () => sequential(L.rnn({ inputShape: [5, 3], cell: L.gruCell({ units: 4 }) })),
  time_distributed: () => sequential(L.timeDistributed({ inputShape: [4, 5], layer: L.dense({ units: 3 }) })),
  embedding: () => sequential(L.embedding({ inputDim: 9, outputDim: 4, inputLength: 6 }), L.flatten(), L.dense({ units: 2 })),
  embedding_mask: () => sequential(L.embedding({ inputDim: 9, outputDim: 4, inputLength: 6, maskZero: true }), L.gru({ units: 3 })),
  hard_sigmoid: () => sequential(L.dense({ inputShape: [5], units: 4, activation: "hardSigmoid" }), L.dense({ units: 3, activation: "softplus" })),
  leaky_relu: () => sequential(L.dense({ inputShape: [5], units: 4 }), L.leakyReLU({ alpha: 0.1 }), L.elu({ alpha: 0.7 }), L.thresholdedReLU({ theta: 0.1 })),
  prelu: () => sequential(L.conv2d({ inputShape: [5, 5, 2], filters: 3, kernelSize: 3 }), L.prelu({ sharedAxes: [1, 2] })),
  relu_max: () => sequential(L.dense({ inputShape: [5], units: 4 }), L.reLU({ maxValue: 0.5 }), L.softmax({ axis: -1 })),
  normalized: () => sequential(L.layerNormalization({ inputShape: [5, 4] }), L.zeroPadding2d === undefined ? L.flatten() : L.flatten()),
  padded: () => sequential(L.zeroPadding2d({ inputShape: [5, 5, 2], padding: [[1, 0], [2, 1]] }), L.cropping2D({ cropping: 1 }), L.upSampling2d({ size: [2, 2] })),
  reshaped: () => sequential(L.reshape({ inputShape: [6, 4], targetShape: [3, 8] }), L.permute({ dims: [2, 1] }), L.flatten(), L.repeatVector({ n: 2 })),
  rescaled: () => sequential(L.rescaling({ inputShape: [4, 4, 3], scale: 1 / 127.5, offset: -1 }), L.conv2d({ filters: 2, kernelSize: 3 })),
  resized: () => sequential(L.resizing({ inputShape: [8, 8, 3], height: 4, width: 5 }), L.centerCrop({ height: 2, width: 2 })),
  residual: () =>
    functional([6, 6, 3], (x) => {
      const y = L.conv2d({ filters: 3, kernelSize: 3, padding: "same" }).apply(x);
      const z = L.concatenate().apply([L.add().apply([x, y]), L.multiply().apply([x, y])]);
      return L.dense({ units: 2 }).apply(L.globalAveragePooling2d({}).apply(z));
    }),
  nested: () => {
    const inner = sequential(L.dense({ inputShape: [5], units: 5, activation: "tanh" }));
    const other = functional([5], (x) => L.dense({ units: 5 }).apply(x));
    return functional([5], (x) => L.subtract === undefined ? other.apply(inner.apply(x)) : L.add().apply([other.apply(inner.apply(x)), inner.apply(other.apply(x))]));
  },
  nested_first: () => sequential(sequential(L.dense({ inputShape: [5], units: 4 })), L.dense({ units: 2 })),
  dot: () => {
    const [a, b] = [tf.input({ shape: [4] }), tf.input({ shape: [4] })];
    return tf.model({ inputs: [a, b], outputs: L.dot({ axes: -1 }).apply([a, b]) });
  },
};
for (const name of ["softmax", "elu", "selu", "relu6", "linear", "sigmoid", "softsign", "tanh", "swish", "mish", "gelu"]) {
  models[`activation_${name}`] = () => sequential(L.dense({ inputShape: [5], units: 4, activation: name }));
}

function safetensors(tensors) {
  const header = {};
  let at = 0;
  const parts = [];
  for (const [name, { shape, values }] of Object.entries(tensors)) {
    const bytes = Buffer.from(Float32Array.from(values).buffer);
    header[name] = { dtype: "F32", shape, data_offsets: [at, at + bytes.length] };
    at += bytes.length;
    parts.push(bytes);
  }
  let text = Buffer.from(JSON.stringify(header));
  text = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, " ")]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, ...parts]);
}

/// Returns the manifest's weights and bytes, with floats quantised.
function quantized(artifacts, dtype) {
  const specs = [];
  const parts = [];
  let at = 0;
  for (const spec of artifacts.weightSpecs) {
    const n = spec.shape.reduce((a, b) => a * b, 1);
    const values = new Float32Array(artifacts.weightData.slice(at, at + 4 * n));
    at += 4 * n;
    const min = Math.min(...values, 0);
    const levels = dtype === "uint8" ? 255 : 65535;
    const scale = (Math.max(...values, 0) - min) / levels || 1;
    if (dtype === "float16") {
      const half = new Uint16Array(values.length);
      // Numbers of 10 bits behind the point: rounded by way of f32.
      values.forEach((v, i) => (half[i] = toHalf(v)));
      parts.push(Buffer.from(half.buffer));
      specs.push({ ...spec, quantization: { dtype } });
    } else {
      const whole = (dtype === "uint8" ? Uint8Array : Uint16Array).from(values, (v) => Math.round((v - min) / scale));
      parts.push(Buffer.from(whole.buffer));
      specs.push({ ...spec, quantization: { dtype, scale, min } });
    }
  }
  return { specs, bytes: Buffer.concat(parts) };
}

function toHalf(value) {
  const bits = new Uint32Array(Float32Array.of(value).buffer)[0];
  const exponent = ((bits >> 23) & 255) - 127 + 15;
  return ((bits >> 16) & 0x8000) | (exponent <= 0 ? 0 : (exponent << 10) | ((bits >> 13) & 0x3ff));
}

async function write(name, model, dtype) {
  const target = path.join(folder, name);
  fs.mkdirSync(target, { recursive: true });
  await model.save(
    tf.io.withSaveHandler(async (artifacts) => {
      const raw = { specs: artifacts.weightSpecs, bytes: Buffer.from(artifacts.weightData) };
      const { specs, bytes } = dtype ? quantized(artifacts, dtype) : raw;
      const half = Math.ceil(bytes.length / 2);
      const shards = dtype ? [bytes.subarray(0, half), bytes.subarray(half)] : [bytes];
      const names = dtype ? shards.map((_, i) => `group1-shard${i + 1}of2.bin`) : ["./weights.bin"];
      shards.forEach((shard, i) => fs.writeFileSync(path.join(target, names[i]), shard));
      const json = {
        modelTopology: artifacts.modelTopology,
        format: "layers-model",
        generatedBy: artifacts.generatedBy,
        convertedBy: null,
        weightsManifest: [{ paths: names, weights: specs }],
      };
      fs.writeFileSync(path.join(target, "model.json"), JSON.stringify(json));
      return { modelArtifactsInfo: { dateSaved: new Date(), modelTopologyType: "JSON" } };
    }),
  );
  await record(name);
}

/// Writes what the saved weights compute.
async function record(name) {
  const target = path.join(folder, name);
  const json = JSON.parse(fs.readFileSync(path.join(target, "model.json")));
  const bytes = Buffer.concat(json.weightsManifest[0].paths.map((p) => fs.readFileSync(path.join(target, p))));
  const again = await tf.loadLayersModel(
    tf.io.fromMemory({
      modelTopology: json.modelTopology,
      weightSpecs: json.weightsManifest[0].weights,
      weightData: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length),
    }),
  );
  const inputs = again.inputs.map((x) => {
    const shape = [2, ...x.shape.slice(1)];
    const whole = name.startsWith("embedding");
    const values = Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => (whole ? Math.floor(Math.abs(random()) * 8.9) : random() * 2));
    return tf.tensor(values, shape);
  });
  const outputs = [again.predict(inputs.length === 1 ? inputs[0] : inputs)].flat();
  const tensors = {};
  inputs.forEach((x, i) => (tensors[`x${i}`] = { shape: x.shape, values: x.dataSync() }));
  outputs.forEach((y, i) => (tensors[`y${i}`] = { shape: y.shape, values: y.dataSync() }));
  fs.writeFileSync(path.join(folder, `${name}.safetensors`), safetensors(tensors));
}

(async () => {
  fs.mkdirSync(folder, { recursive: true });
  for (const name of process.argv.slice(3)) await record(name);
  if (process.argv.length > 3) return;
  let made = 0;
  for (const [name, build] of Object.entries(models)) {
    const dtypes = name === "convolutional" || name === "lstm" ? [null, "float16", "uint8", "uint16"] : [null];
    for (const dtype of dtypes) {
      try {
        const model = build();
        model.weights.forEach((w) => {
          const positive = w.name.includes("variance") || w.name.includes("gamma");
          const n = w.shape.reduce((a, b) => a * b, 1);
          w.write(tf.tensor(Array.from({ length: n }, () => (positive ? Math.abs(random()) + 0.5 : random())), w.shape));
        });
        await write(dtype ? `${name}_${dtype}` : name, model, dtype);
        made += 1;
      } catch (e) {
        console.error(`${name}: TensorFlow.js ${tf.version.tfjs} does not make it: ${String(e.message).slice(0, 150)}`);
      }
    }
  }
  console.error(`${made} models of TensorFlow.js ${tf.version.tfjs} in ${folder}`);
})();
