// Takes a job from the server that this page came from, runs it as edgecnn/agent/run.py would, and posts the result.

// A sample is long enough for the clock's step to be at most a hundredth of it.
const TICKS_PER_SAMPLE = 100;
const CALIBRATION_MS = 200;
// Posting disturbs what is timed, a little.
const REPORT_EVERY_MS = 500;
const BATTERY_EVERY_MS = 10000;

class Failure extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

const element = (id) => document.getElementById(id);
const rounded = (ms) => Math.round(ms * 1e6) / 1e6; // the clock's values carry noise of the double precision
const breathe = () => new Promise((resolve) => setTimeout(resolve, 0));
const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

let over = false; // the result or an error is with the server, or nobody is there to take it
let reported = { doing: "", at: 0 };

async function post(path, body) {
  const reply = await fetch(path, { method: "POST", body });
  if (!reply.ok) throw new Failure("refused", await reply.text());
}

async function report(doing, done) {
  element("status").textContent = doing;
  element("progress").value = done;
  const now = performance.now();
  if (doing !== reported.doing || now - reported.at > REPORT_EVERY_MS) {
    reported = { doing, at: now };
    await post("progress", JSON.stringify({ doing, done }));
  }
  await breathe();
  if (over) throw new Failure("over", "the measurement was stopped");
}

function end(text) {
  over = true;
  element("status").textContent = text;
  element("progress").hidden = true;
}

// The smallest step between two readings of the clock: 0.005 ms where a page is isolated, 0.1 ms and more elsewhere.
function timerResolution() {
  let least = Infinity;
  for (let i = 0; i < 20; i++) {
    const start = performance.now();
    let now = start;
    while (now === start) now = performance.now();
    least = Math.min(least, now - start);
  }
  return rounded(least);
}

async function about() {
  const agent = navigator.userAgentData;
  const hints = agent ? await agent.getHighEntropyValues(["model", "platformVersion"]).catch(() => ({})) : {};
  return {
    user_agent: navigator.userAgent,
    platform: hints.platform,
    platform_version: hints.platformVersion,
    model: hints.model,
    isolated: self.crossOriginIsolated === true,
    cores: navigator.hardwareConcurrency,
  };
}

// Seeded noise, the same in every browser: uniform in [0, 1) for floats, over the full range for integers.
const ARRAYS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array, int8: Int8Array };
const RANGES = { int32: [-(2 ** 31), 2 ** 32], uint8: [0, 2 ** 8], int8: [-(2 ** 7), 2 ** 8] };

function noise({ name, dtype, shape }, seed) {
  if (!ARRAYS[dtype]) throw new Failure("failed", `input '${name}' is ${dtype}, which a page has no noise for`);
  const array = new ARRAYS[dtype](shape.reduce((product, size) => product * size, 1));
  let state = (seed * 2654435761 + 1) >>> 0 || 1;
  for (let i = 0; i < array.length; i++) {
    // xorshift32, of Marsaglia's Xorshift RNGs, 2003
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    const uniform = (state >>> 0) / 2 ** 32;
    array[i] = dtype === "float32" ? uniform : Math.floor(uniform * RANGES[dtype][1]) + RANGES[dtype][0];
  }
  return array;
}

// An open first axis is one image; the runtime refuses any other that is open.
const fixed = (shape) => Array.from(shape, (size, axis) => (axis === 0 && !(size > 0) ? 1 : size));

// What a runtime gives: inputs {name, dtype, shape}; bind(arrays) hands them over; infer() is one inference, its
// outputs readable by the page when it is done; read() gives them as {dtype, shape, array}.

async function loadLiteRt(job, bytes) {
  const litert = await import("./runtime/index.js");
  const native = job.accelerator === "wasm";
  // A build has threads or the stack switching that other accelerators need, not both.
  const jspi = !native && "Suspending" in WebAssembly;
  await litert.loadLiteRt("runtime/", { threads: native && job.threads > 1, jspi });
  const began = performance.now();
  const model = await litert.loadAndCompile(bytes, {
    accelerator: job.accelerator,
    cpuOptions: { numThreads: job.threads },
  });
  const loadMs = performance.now() - began;
  if (model.options.accelerator !== job.accelerator) {
    throw new Failure("accelerator", `it would run on ${model.options.accelerator}, not on ${job.accelerator}`);
  }
  const inputs = model.getInputDetails().map(({ name, dtype, shape }) => ({ name, dtype, shape: fixed(shape) }));
  let tensors = [];
  let outputs = [];
  return {
    loadMs,
    inputs,
    fullyAccelerated: native ? null : model.isFullyAccelerated,
    // Without it, a slower build is taken.
    relaxedSimd: await litert.supportsFeature("relaxedSimd"),
    bind(arrays) {
      tensors.forEach((tensor) => tensor.delete());
      tensors = arrays.map((array, i) => new litert.Tensor(array, inputs[i].shape));
    },
    async infer() {
      outputs.forEach((tensor) => tensor.delete());
      outputs = await model.run(tensors);
      if (!native) {
        const host = (tensor) => (tensor.accelerator === "webgpu" ? tensor.moveTo("wasm") : tensor);
        outputs = await Promise.all(outputs.map(host));
      }
    },
    read: () =>
      outputs.map((tensor) => {
        const { dtype, layout } = tensor.type;
        return { dtype, shape: Array.from(layout.dimensions), array: tensor.toTypedArray() };
      }),
  };
}

async function loadOnnxRuntime(job, bytes) {
  const native = job.accelerator === "wasm";
  const ort = await import(native ? "./runtime/ort.wasm.min.mjs" : "./runtime/ort.webgpu.min.mjs");
  ort.env.wasm.wasmPaths = new URL("runtime/", document.baseURI).href;
  ort.env.wasm.numThreads = job.threads;
  const options = { executionProviders: [job.accelerator] };
  // The first session also compiles the runtime itself, which is no part of the model's load.
  await (await ort.InferenceSession.create(bytes, options)).release();
  if (ort.env.wasm.numThreads !== job.threads) {
    throw new Failure("threads", `it falls back to ${ort.env.wasm.numThreads} of ${job.threads} threads`);
  }
  const began = performance.now();
  const session = await ort.InferenceSession.create(bytes, options);
  const loadMs = performance.now() - began;
  const inputs = session.inputMetadata.map(({ name, type, shape }) => ({ name, dtype: type, shape: fixed(shape) }));
  let feeds = {};
  let results = {};
  return {
    loadMs,
    inputs,
    bind(arrays) {
      feeds = Object.fromEntries(inputs.map(({ name, dtype, shape }, i) => [name, new ort.Tensor(dtype, arrays[i], shape)]));
    },
    async infer() {
      results = await session.run(feeds);
    },
    read: () =>
      session.outputNames.map((name) => {
        const { type, dims, data } = results[name];
        return { dtype: type, shape: Array.from(dims), array: data };
      }),
  };
}

const RUNTIMES = { tflite: loadLiteRt, onnxruntime: loadOnnxRuntime };

// The loop of edgecnn/agent/loop.py. A sample is the mean of `runs` inferences.
async function timedRuns(model, runs, { minMs, minSamples = 1, maxMs = Infinity }) {
  const samples = [];
  const began = performance.now();
  let elapsed = 0;
  while (samples.length === 0 || ((elapsed < minMs || samples.length < minSamples) && elapsed < maxMs)) {
    const start = performance.now();
    for (let i = 0; i < runs; i++) await model.infer();
    const stop = performance.now();
    samples.push(rounded((stop - start) / runs));
    elapsed = stop - began;
  }
  return samples;
}

// So many inferences that the shortest of some samples is long enough for the clock; from `runs` upwards.
async function runsPerSample(model, runs, resolution) {
  for (; ; runs *= 2) {
    const samples = await timedRuns(model, runs, { minMs: 0, minSamples: 5, maxMs: CALIBRATION_MS });
    if (Math.min(...samples) * runs >= TICKS_PER_SAMPLE * resolution) return runs;
  }
}

async function warmUp(model, runs, job) {
  const samples = [];
  const began = performance.now();
  const maxMs = job.warmup_max_s * 1000;
  const limits = {
    minMs: job.loop.window_s * 1000,
    minSamples: job.loop.window_runs,
    maxMs: job.loop.window_share * maxMs,
  };
  let previous = null;
  for (;;) {
    const window = await timedRuns(model, runs, limits);
    samples.push(...window);
    const newest = median(window);
    const elapsed = performance.now() - began;
    const agree = previous !== null && Math.abs(newest - previous) <= job.loop.steady_within * previous;
    if (agree && elapsed >= Math.min(job.loop.shortest_s * 1000, maxMs)) return { samples, warm: true };
    if (previous !== null && elapsed >= maxMs) return { samples, warm: false };
    previous = newest;
    await report("warming up", Math.min(1, elapsed / (maxMs || 1)));
  }
}

// What of the device's state a page is told, where the browser tells it.
class Telemetry {
  readings = [];
  last = -Infinity;

  async read(began) {
    if (!navigator.getBattery) return;
    const { level, charging } = await navigator.getBattery();
    this.last = performance.now();
    const at_s = (this.last - began) / 1000;
    this.readings.push({ at_s, battery_percent: level * 100, charging });
  }

  async readIfDue(began) {
    if (performance.now() - this.last > BATTERY_EVERY_MS) await this.read(began);
  }
}

// So many samples of a block, evenly spread over it.
function spread(block, count) {
  if (count === null || block.length <= count) return block;
  return Array.from({ length: count }, (_, place) => block[Math.floor((place * block.length) / count)]);
}

async function measure(job, model, runs) {
  const measured = { samples_ms: [], block_runs: [], block_at_s: [], block_took_s: [] };
  const telemetry = new Telemetry();
  const began = performance.now();
  let ms = 0;
  let samples = 0;
  for (;;) {
    await telemetry.readIfDue(began);
    const start = performance.now();
    const block = await timedRuns(model, runs, { minMs: job.block_s * 1000 });
    const took = performance.now() - start;
    const kept = spread(block, job.block_samples);
    measured.samples_ms.push(...kept);
    measured.block_runs.push(kept.length);
    measured.block_at_s.push(rounded(start - began) / 1000);
    measured.block_took_s.push(rounded(took) / 1000);
    ms += took;
    samples += block.length;
    const share = Math.min(ms / (job.min_time_s * 1000), samples / job.min_runs);
    if (share >= 1 || ms >= job.max_time_s * 1000) break;
    await report("measuring", share);
  }
  await telemetry.read(began);
  return { ...measured, runs: samples * runs, telemetry: telemetry.readings };
}

async function batch(job, spec, index) {
  const size = spec.shape[0];
  const reply = await fetch(`inputs/${index * size}/${(index + 1) * size}`);
  if (!reply.ok) throw new Failure("failed", await reply.text());
  return new ARRAYS[spec.dtype](await reply.arrayBuffer());
}

function checkInputs(job, inputs) {
  if (inputs.length !== 1) throw new Failure("failed", `one input is given, the model takes ${inputs.length}`);
  const [{ name, dtype, shape }] = inputs;
  const given = job.inputs.shape;
  const fits = given.length === shape.length && given.slice(1).every((size, i) => size === shape[i + 1]);
  if (!fits || given[0] % shape[0] || dtype !== job.inputs.dtype || !ARRAYS[dtype]) {
    throw new Failure(
      "failed",
      `the inputs are ${job.inputs.dtype} [${given}], '${name}' takes ${dtype} [${shape}]`,
    );
  }
  return given[0] / shape[0];
}

async function computeOutputs(job, model, batches) {
  let output = null;
  for (let index = 0; index < batches; index++) {
    model.bind([await batch(job, model.inputs[0], index)]);
    await model.infer();
    const outputs = model.read();
    if (outputs.length !== 1) throw new Failure("failed", `one output is asked for, the model gives ${outputs.length}`);
    const { dtype, shape, array } = outputs[0];
    output = { dtype, shape };
    await post(`outputs/${index}`, array);
    await report("computing the outputs", (index + 1) / batches);
  }
  return output;
}

async function run(job) {
  if (job.threads > 1 && !self.crossOriginIsolated) {
    throw new Failure("threads", `${job.threads} threads need an isolated page, which this one is not`);
  }
  if (job.accelerator === "webgpu" && !(await navigator.gpu?.requestAdapter())) {
    throw new Failure("accelerator", "this browser has no WebGPU here");
  }
  if (job.accelerator === "webnn" && !navigator.ml) throw new Failure("accelerator", "this browser has no WebNN here");
  await report("loading", 0);
  const reply = await fetch("model");
  if (!reply.ok) throw new Failure("failed", await reply.text());
  const model = await RUNTIMES[job.runtime](job, new Uint8Array(await reply.arrayBuffer()));
  const batches = job.inputs ? checkInputs(job, model.inputs) : 0;
  model.bind(batches ? [await batch(job, model.inputs[0], 0)] : model.inputs.map((spec) => noise(spec, job.seed)));
  const [firstMs] = await timedRuns(model, 1, { minMs: 0 });
  await report("warming up", 0);
  const resolution = timerResolution();
  const coldRuns = await runsPerSample(model, 1, resolution);
  const warmup = await warmUp(model, coldRuns, job);
  const runs = await runsPerSample(model, coldRuns, resolution);
  await report("measuring", 0);
  const measured = await measure(job, model, runs);
  const output = batches ? await computeOutputs(job, model, batches) : null;
  return {
    load_ms: model.loadMs,
    first_ms: firstMs,
    warmup_ms: warmup.samples,
    warm: warmup.warm,
    ...measured,
    timer_resolution_ms: resolution,
    runs_per_sample: runs,
    fully_accelerated: model.fullyAccelerated,
    relaxed_simd: model.relaxedSimd,
    output,
  };
}

async function firstLine(reader) {
  const decoder = new TextDecoder();
  let text = "";
  while (!text.endsWith("\n")) {
    const { value, done } = await reader.read();
    if (done) throw new Failure("over", "the server has closed the connection");
    text += decoder.decode(value, { stream: true });
  }
  return text;
}

// A page in a background tab, or one that the browser loads ahead of time, leaves the job to the one that is seen.
async function seen() {
  while (document.visibilityState !== "visible") {
    await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
  }
}

async function main() {
  await seen();
  const taken = await fetch("take", { method: "POST", body: JSON.stringify(await about()) });
  if (!taken.ok) return end(await taken.text());
  const reader = taken.body.getReader();
  const job = JSON.parse(await firstLine(reader));
  // The server ends this connection with the job; where it ends before, the command was stopped.
  const stopped = () => over || end("The measurement was stopped on the computer.");
  reader.read().then(stopped, stopped);

  element("title").textContent = job.title;
  const threads = `${job.threads} ${job.threads === 1 ? "thread" : "threads"}`;
  element("facts").textContent = `${job.runtime_name}, ${job.accelerator}, ${threads}`;
  const link = Object.assign(document.createElement("a"), { href: job.licence_url, rel: "noreferrer", target: "_blank" });
  link.textContent = job.licence;
  element("licence").append(`${job.runtime_name}: `, link);

  navigator.wakeLock?.request("screen").catch(() => {}); // refused where the battery is low
  document.addEventListener("visibilitychange", () => {
    if (over || document.visibilityState === "visible") return;
    // A beacon, since the page may be frozen before it could wait for an answer.
    navigator.sendBeacon("error", JSON.stringify({ kind: "hidden", message: "the page went to the background" }));
    end("The page went to the background, which spoils the measurement. Start the command again.");
  });

  try {
    const result = await run(job);
    over = true;
    await post("result", JSON.stringify(result));
    end("Done. The result is on the computer; this page can be closed.");
    element("result").textContent = `${median(result.samples_ms).toPrecision(3)} ms`;
  } catch (error) {
    if (over && error.kind !== "refused") return;
    const message = `${error.kind ? "" : `${error.name ?? "error"}: `}${error.message ?? error}`;
    end(`This did not work: ${message}`);
    await post("error", JSON.stringify({ kind: error.kind ?? "failed", message: message.slice(0, 2000) })).catch(() => {});
  }
}

main().catch((error) => end(`This did not work: ${error.message}`));
