// Conversations as files, and back: JSON for one or many, Markdown for one. Pure functions; nothing in a file is
// trusted, and what they throw is the name of the words that say what is wrong with it.
const FILE_FORMAT = "llama-demo conversations";
const FILE_BYTES = 20_000_000;
const FILE_TURNS = 10_000;
const TITLE = 80;
const MARK = "<!-- llama-demo:";
const SAMPLING = ["temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens"];

const isText = (value) => typeof value === "string";
const isNumber = (value) => Number.isFinite(value);
const isSeed = (value) => value === null || (Number.isInteger(value) && value >= 0);
const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isFigures = (value) =>
  isObject(value) &&
  [value.written, value.read].every(isNumber) &&
  [value.first, value.speed].every((one) => one === null || isNumber(one));

function readSampling(given) {
  if (!isObject(given) || !SAMPLING.every((name) => isNumber(given[name]))) return null;
  const sampling = Object.fromEntries(SAMPLING.map((name) => [name, given[name]]));
  return { ...sampling, seed: isSeed(given.seed) ? given.seed : null };
}

const TURN_FIELDS = {
  model: isText,
  title: isText,
  repo: isText,
  revision: isText,
  system_prompt: isText,
  seed: isSeed,
  figures: isFigures,
  remote: (value) => value === true,
  dropped: isNumber,
  prompt: isText,
  finish: isText,
  rating: (value) => ["like", "dislike"].includes(value),
};

function readTurn(given, index) {
  const role = index % 2 ? "assistant" : "user";
  if (!isObject(given) || given.role !== role || !isText(given.content)) throw new Error("import_broken");
  const turn = { role, content: given.content };
  if (role === "user") return turn;
  for (const [name, fits] of Object.entries(TURN_FIELDS)) if (fits(given[name])) turn[name] = given[name];
  const sampling = readSampling(given.sampling);
  if (sampling) turn.sampling = sampling;
  const { used, room } = isObject(given.context) ? given.context : {};
  if (isNumber(used) && isNumber(room) && room > 0) turn.context = { used, room };
  return turn;
}

function readConversation(given) {
  if (!isObject(given) || !Array.isArray(given.turns) || !given.turns.length) throw new Error("import_broken");
  if (given.turns.length > FILE_TURNS) throw new Error("import_large");
  const turns = given.turns.map(readTurn);
  const sampling = readSampling(given.settings?.sampling);
  const { model, system_prompt } = given.settings ?? {};
  return {
    id: isText(given.id) && /^[\w-]{1,64}$/.test(given.id) ? given.id : randomId(),
    updated: isNumber(given.updated) ? Math.min(given.updated, Date.now()) : Date.now(),
    title: (isText(given.title) ? given.title : turns[0].content.trim()).slice(0, TITLE),
    ...(given.named === true && { named: true }),
    settings: sampling && isText(model) && isText(system_prompt) ? { model, system_prompt, sampling } : null,
    turns,
  };
}

function conversationsAsJson(conversations) {
  return JSON.stringify({ format: FILE_FORMAT, version: 1, conversations }, null, 1);
}

function readJson(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error("import_broken");
  }
  if (value?.format !== FILE_FORMAT || !Array.isArray(value.conversations)) throw new Error("import_foreign");
  if (value.version !== 1) throw new Error("import_newer");
  return value.conversations.map(readConversation);
}

// A line of a text that looks like one of our marks gets a backslash before it, and loses it again on the way back.
const guarded = (text) => text.replace(/^(?=\\*<!-- llama-demo:)/gm, "\\");
const unguarded = (text) => text.replace(/^\\(?=\\*<!-- llama-demo:)/gm, "");
const mark = (name, data) => `${MARK}${name} ${JSON.stringify(data).replaceAll("--", "-\\u002d")} -->`;

function turnHeading(turn, words) {
  if (turn.role === "user") return `## ${words.you}`;
  const facts = [turn.repo, turn.revision, isNumber(turn.seed) && `seed ${turn.seed}`];
  for (const name of SAMPLING) if (turn.sampling) facts.push(`${name} ${turn.sampling[name]}`);
  return [`## ${turn.title || turn.model || words.reply}`, facts.filter(Boolean).join(" · ")].filter(Boolean).join("\n\n");
}

function conversationAsMarkdown({ turns, ...about }, words) {
  const title = `# ${about.title.split(/\s+/).join(" ") || words.untitled}`;
  const parts = turns.map(({ content, ...data }) =>
    [turnHeading({ content, ...data }, words), `${mark("turn", data)}\n${guarded(content)}\n${MARK}end -->`].join("\n\n"),
  );
  return `${[title, mark("conversation", about), ...parts].join("\n\n")}\n`;
}

function readMarkdown(text) {
  const about = text.match(/^<!-- llama-demo:conversation (.*) -->$/m);
  if (!about) throw new Error("import_foreign");
  const turns = text.matchAll(/^<!-- llama-demo:turn (.*) -->\n([^]*?)\n<!-- llama-demo:end -->$/gm);
  try {
    const read = [...turns].map(([, data, content]) => ({ ...JSON.parse(data), content: unguarded(content) }));
    return [readConversation({ ...JSON.parse(about[1]), turns: read })];
  } catch (error) {
    throw error instanceof SyntaxError ? new Error("import_broken") : error;
  }
}

// The conversations of a file that was chosen. Each is whole and safe to show, or none is given.
async function readConversations(file) {
  if (file.size > FILE_BYTES) throw new Error("import_large");
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    throw new Error("import_unreadable");
  }
  text = text.replaceAll("\r\n", "\n");
  return text.trimStart().startsWith("{") ? readJson(text) : readMarkdown(text);
}

function fileName(title) {
  const name = title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 50);
  return name || "conversation";
}
