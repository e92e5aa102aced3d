// OpenAI's own npm package against the server in BASE_URL: files, uploads → job → events → chat, responses, streams.
// Prints what it saw as one line of JSON; tests/e2e/test_node_sdk.py looks at it.
import OpenAI, { toFile } from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "any", maxRetries: 2 });
const seen = {};

const rows = Array.from({ length: 12 }, (_, n) => ({
  messages: [
    { role: "user", content: `What does red${n} mean?` },
    { role: "assistant", content: `blue ${n}` },
  ],
}));
const text = rows.map((row) => JSON.stringify(row)).join("\n") + "\n";
const file = await client.files.create({ file: await toFile(Buffer.from(text), "rows.jsonl"), purpose: "fine-tune" });
seen.file = { bytes: file.bytes, purpose: file.purpose, status: file.status };

try {
  await client.fineTuning.jobs.create({ model: "tiny", training_file: "file-nothing" });
} catch (error) {
  seen.error = { status: error.status, param: error.param, name: error.constructor.name, request: error.requestID };
}

let job = await client.fineTuning.jobs.create({
  model: "tiny",
  training_file: file.id,
  suffix: "node",
  metadata: { from: "node" },
  method: { type: "supervised", supervised: { hyperparameters: { n_epochs: 1, batch_size: 4 } } },
});
seen.created = job.status;
while (!["succeeded", "failed", "cancelled"].includes(job.status)) {
  await new Promise((resolve) => setTimeout(resolve, 300));
  job = await client.fineTuning.jobs.retrieve(job.id);
}
seen.job = { id: job.id, status: job.status, error: job.error, model: job.fine_tuned_model, files: job.result_files.length };

seen.events = [];
for await (const event of client.fineTuning.jobs.listEvents(job.id, { limit: 2 })) {
  seen.events.push({ type: event.type, level: event.level, message: event.message });
}
seen.checkpoints = [];
for await (const checkpoint of client.fineTuning.jobs.checkpoints.list(job.id, { limit: 1 })) {
  seen.checkpoints.push(checkpoint.fine_tuned_model_checkpoint);
}
const found = [];
for await (const one of client.fineTuning.jobs.list({ metadata: { from: "node" } })) found.push(one.id);
seen.found = found;

const chat = await client.chat.completions.create({
  model: job.fine_tuned_model,
  messages: [{ role: "user", content: "What does red1 mean?" }],
  max_completion_tokens: 8,
});
seen.chat = { model: chat.model, role: chat.choices[0].message.role, tokens: chat.usage.completion_tokens };

seen.chunks = { finish: null, usage: null };
const question = [{ role: "user", content: "What does red2 mean?" }];
const stream = await client.chat.completions.create({
  model: job.fine_tuned_model,
  messages: question,
  max_completion_tokens: 8,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  seen.chunks.finish = chunk.choices[0]?.finish_reason ?? seen.chunks.finish;
  seen.chunks.usage = chunk.usage?.completion_tokens ?? seen.chunks.usage;
}

const asked = { model: job.fine_tuned_model, max_output_tokens: 8 };
const first = await client.responses.create({ ...asked, input: "What does red3 mean?" });
seen.response = { status: first.status, text: first.output_text, tokens: first.usage.output_tokens };
const kinds = [];
const more = { ...asked, input: "And red4?", previous_response_id: first.id, stream: true };
for await (const event of await client.responses.create(more)) {
  kinds.push(event.type);
  if (event.response) seen.last = event.response.id;
}
seen.kinds = [kinds[0], kinds.at(-1)];
seen.inputs = [];
for await (const item of client.responses.inputItems.list(seen.last, { order: "asc" })) seen.inputs.push(item.role);

const half = text.indexOf("\n") + 1;
const upload = await client.uploads.create({
  bytes: Buffer.byteLength(text),
  filename: "parts.jsonl",
  mime_type: "text/jsonl",
  purpose: "fine-tune",
});
const parts = [];
for (const part of [text.slice(0, half), text.slice(half)]) {
  const data = await toFile(Buffer.from(part), "part");
  parts.push((await client.uploads.parts.create(upload.id, { data })).id);
}
const whole = await client.uploads.complete(upload.id, { part_ids: parts });
seen.upload = { status: whole.status, same: (await (await client.files.content(whole.file.id)).text()) === text };

console.log(JSON.stringify(seen));
