// The chat tab's own state: the conversation on the screen, and the one reply that may be on its way.
// The server words everything about a reply; the few words said here come with the page.
const { defaults, model, models } = props.value;
let { words, prompts: builtIn } = props.value;
const SILENCE = 3000;
const store = openConversations();
const untouched = { model, system_prompt: "", sampling: defaults };
let conversation = store.read(store.current()) ?? fresh();
const list = conversationList(store, { words: () => words, current: () => conversation.id, open, turnTo, change });
const library = promptLibrary({ words: () => words, builtIn: () => builtIn, now: written, use: usePrompt });
let places = [];
const awaiting = [];
let busy = null;
let request = null;
let toFill = "";
let preset = "";
let chosen = model;

function fresh() {
  return { id: randomId(), updated: Date.now(), title: "", settings: null, turns: [] };
}

function lastTurn() {
  return conversation.turns.at(-1);
}

// What the controls say, in the order in which the server built them.
function readSettings([model, system_prompt, temperature, top_p, top_k, repetition_penalty, max_new_tokens, seed]) {
  const sampling = { temperature, top_p, top_k, repetition_penalty, max_new_tokens };
  return { model, system_prompt, sampling: { ...sampling, seed: seed === "" ? null : seed } };
}

function settingsValues({ model, system_prompt, sampling }) {
  const { temperature, top_p, top_k, repetition_penalty, max_new_tokens, seed } = sampling;
  return [model, system_prompt, temperature, top_p, top_k, repetition_penalty, max_new_tokens, seed];
}

function ask(turns, values, { draft = "", continueLast = false } = {}) {
  const settings = readSettings(values);
  const start = continueLast ? lastTurn().content : "";
  busy = { id: randomId(), before: copyOf(conversation.turns), start, draft, stopped: false, heard: Date.now() };
  request = {
    id: busy.id,
    language: window.llamaDemoLanguage,
    turns: turns.map(({ role, content }) => ({ role, content })),
    continue_last: continueLast,
    ...settings,
  };
  conversation.settings = settings;
  conversation.turns = turns;
  if (!continueLast) turns.push({ role: "assistant", content: "" });
  const { model, system_prompt, sampling } = settings;
  Object.assign(turns.at(-1), { model, system_prompt, sampling, figures: null });
  say("chat-error", "");
  awaiting.push(busy.id);
  show();
  trigger("ask");
}

// Whether anything came yet of the reply that is on its way; a Continue begins with what was there.
function begun() {
  return lastTurn().content !== busy.start;
}

// The stream of the request called `id` broke off.
function lost(id) {
  update({ id, text: null, note: "", error: words.lost, finish: "cancelled", done: true });
}

function update(view) {
  if (!busy || view?.id !== busy.id) return;
  busy.heard = Date.now();
  const turn = lastTurn();
  if (view.text !== null && !busy.stopped) turn.content = view.text;
  if (view.title) Object.assign(turn, { model: request.model, title: view.title });
  if (view.room) turn.context = { used: view.used, room: view.room };
  if (view.dropped !== undefined) turn.dropped = view.dropped;
  if (view.done) finish(view);
  else say("chat-note", view.note);
  show();
}

function finish(view) {
  const turn = lastTurn();
  const { before, start, draft, stopped } = busy;
  const cut = stopped && view.text !== null && view.text !== turn.content;
  const nothing = !begun() && view.finish !== "stop";
  busy = null;
  say("chat-note", "");
  say("chat-error", view.error);
  if (nothing) {
    conversation.turns = before; // the page is as it was, and the text is in the box again
    if (draft) fill(beforeTyped(draft));
  } else {
    const { figures = null, remote = false, prompt = "", seed = null, repo = "", revision = "" } = view;
    const ended = cut ? "cancelled" : view.finish || "cancelled";
    if (figures && start) figures.written += before.at(-1).figures?.written ?? 0;
    Object.assign(turn, { figures, remote, prompt, seed, repo, revision, finish: ended });
    for (const earlier of conversation.turns.slice(0, -1)) delete earlier.prompt; // the newest contains them
  }
  keep();
  window.dispatchEvent(new CustomEvent("llama-demo:status"));
}

function keep() {
  if (!conversation.turns.length) {
    store.remove(conversation.id);
    list.draw();
    return;
  }
  conversation.updated = Date.now();
  if (!conversation.named) conversation.title = conversation.turns[0].content.trim().slice(0, TITLE);
  const kept = store.write(conversation);
  store.setCurrent(conversation.id);
  if (!kept && !part("chat-error").textContent) say("chat-error", words.not_kept);
  list.draw();
}

// Of the conversation on the screen, or of another.
function change(id, data) {
  if (id === conversation.id) Object.assign(conversation, data);
  const kept = store.write({ ...(store.read(id) ?? conversation), ...data });
  if (!kept) say("chat-error", words.not_kept);
}

// What stands in the box or in the setting, for the library to keep.
function written(kind) {
  return part(kind === "system" ? "system-prompt" : "message").querySelector("textarea").value;
}

// A message that has no reply, and what was typed since.
function beforeTyped(draft) {
  return [draft, written("message")].filter(Boolean).join("\n\n");
}

function usePrompt(kind, text) {
  if (kind === "message") {
    fill(text);
    focusBox();
    return;
  }
  preset = text;
  trigger("preset");
}

// What Gradio says of a thumb: of which message, and which. By then another conversation may be on the screen.
function rate({ shown: { id, places }, message: place, rating }) {
  const { turns } = id === conversation.id ? conversation : (store.read(id) ?? fresh());
  const turn = turns[places[place]];
  if (!turn) return;
  if (rating) turn.rating = rating;
  else delete turn.rating;
  change(id, { turns });
  show();
}

// On a phone this would open the keyboard over the page.
function focusBox() {
  if (window.matchMedia("(hover: hover)").matches) part("message").querySelector("textarea").focus();
}

function fill(text) {
  toFill = text;
  trigger("fill");
}

function show() {
  const last = lastTurn();
  const context = conversation.turns.findLast((turn) => turn.context)?.context;
  const classes = document.body.classList;
  classes.toggle("chat-busy", busy !== null);
  classes.toggle("chat-empty", conversation.turns.length === 0);
  classes.toggle("chat-cut", !busy && last?.role === "assistant" && isCut(last));
  classes.toggle("chat-context", context !== undefined);
  if (context) {
    part("chat-meter").value = context.used / context.room;
    part("chat-meter").setAttribute("aria-label", words.context_label);
    part("chat-used").querySelector("span").textContent = filled(words.context, { used: context.used, total: context.room });
  }
  say("chat-dropped", droppedLine(last, words));
  trigger("show");
}

// A reply in progress is given up where it is; what was asked stays.
function leave() {
  if (!busy) return;
  window.llamaDemo.stop();
  if (begun() || busy.draft) lastTurn().finish = "cancelled";
  else conversation.turns = busy.before;
  keep();
}

// Another conversation comes onto the screen, or a new one; a drawer that is open stays so.
function turnTo(id) {
  leave();
  busy = null;
  const found = store.read(id);
  conversation = found ? copyOf(found) : fresh();
  store.setCurrent(conversation.id);
  say("chat-note", "");
  say("chat-error", "");
  list.draw();
  show();
  if (conversation.settings) trigger("restore");
}

function open(id) {
  if (id !== conversation.id) turnTo(id);
  closeDrawers();
  focusBox();
}

// What the components call; see `chat.py`. Those with an output return its new value.
window.llamaDemo = {
  request: () => request,
  messages() {
    const view = chatMessages(conversation.turns, words);
    places = view.places;
    return [{ __type__: "update", value: view.messages, feedback_value: view.ratings }];
  },
  shown: () => ({ id: conversation.id, places }),
  filled: () => toFill,
  preset: () => preset,
  restored: () => settingsValues(conversation.settings ?? untouched),
  defaults: () => settingsValues(untouched).slice(1),
  send(text, ...values) {
    if (busy) return text;
    ask([...conversation.turns, { role: "user", content: text }], values, { draft: text });
    return "";
  },
  more(...values) {
    if (!busy) ask(conversation.turns, values, { continueLast: true });
  },
  retry(...values) {
    if (busy) return;
    const end = conversation.turns.findLastIndex((turn) => turn.role === "user");
    if (end >= 0) ask(conversation.turns.slice(0, end + 1), values);
  },
  undo(text) {
    const end = conversation.turns.findLastIndex((turn) => turn.role === "user");
    if (busy || end < 0) return text;
    const undone = conversation.turns[end].content;
    conversation.turns = conversation.turns.slice(0, end);
    keep();
    show();
    return text || undone;
  },
  edit(messages, ...values) {
    if (busy) return;
    const changed = messages.findIndex(
      ({ role, content }, index) =>
        role === "user" && plain(content[0].text) !== conversation.turns[places[index]]?.content,
    );
    if (changed < 0) {
      show();
      return;
    }
    const content = plain(messages[changed].content[0].text);
    ask([...conversation.turns.slice(0, places[changed]), { role: "user", content }], values, { draft: content });
  },
  stop() {
    if (!busy || busy.stopped) return;
    busy.stopped = true;
    const { id } = busy;
    server.stop(id).catch(() => lost(id));
  },
  // Gradio's end of the oldest request: by then another one may be on its way.
  ended: () => lost(awaiting.shift()),
  fresh: () => open(null),
  closeDrawers,
  prompts: () => library.open(),
  copyLink: () => copyLink(chosen, words),
  // The last reply, with all that led to it, goes to the text tab's token view.
  tokens() {
    const end = conversation.turns.findLastIndex((turn) => turn.role === "assistant" && turn.content);
    if (busy || end < 0) return;
    const turns = conversation.turns.slice(0, end + 1).map(({ role, content }) => ({ role, content }));
    const { system_prompt = "" } = conversation.settings ?? {};
    window.llamaDemoTokens = { turns, system_prompt, model: conversation.turns[end].model };
    window.dispatchEvent(new CustomEvent("llama-demo:tokens"));
    part("text-tab-button").click();
  },
  toggleConversations: () => togglePanel("show-conversations", "show-settings"),
  toggleSettings: () => togglePanel("show-settings", "show-conversations"),
};

// Gradio does not say that a stream broke off. After a silence the header asks how the server is, and tells if it is away.
setInterval(() => {
  if (busy && Date.now() - busy.heard > SILENCE) window.dispatchEvent(new CustomEvent("llama-demo:status"));
}, SILENCE);
window.addEventListener("llama-demo:away", () => lost(busy?.id));

window.addEventListener("llama-demo:model", ({ detail }) => (chosen = detail));

function hear(value) {
  if (value?.words) speak(value);
  else if (value?.rated) rate(value.rated);
  else update(value);
}

function speak(value) {
  words = value.words;
  document.documentElement.lang = value.language;
  say("chat-keys", words.keys);
  say("chat-tokens", words.tokens_action);
  part("chat-tokens").title = words.tokens_action_help;
  builtIn = value.prompts;
  library.draw();
  if (!part("conversation-box")) return;
  list.speak(words);
  show();
}

watch("value", () => hear(props.value));
store.onChange((id) => {
  list.draw();
  const changed = store.read(id);
  if (busy || id !== conversation.id || !changed) return; // what was deleted elsewhere stays on the screen
  conversation = copyOf(changed);
  show();
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !part("chat")?.checkVisibility()) return;
  if (busy) window.llamaDemo.stop();
  else closeDrawers();
});
// Enter that ends a composed character (Hangul, kana) is not Enter that sends.
for (const kind of ["keydown", "keypress"]) {
  document.addEventListener(kind, (event) => event.isComposing && event.stopPropagation(), true);
}
document.addEventListener("copy", (event) => {
  const text = String(document.getSelection());
  if (!text.includes(GUARD)) return;
  event.clipboardData.setData("text/plain", plain(text));
  event.preventDefault();
});
window.addEventListener("pagehide", () => {
  if (part("message")) store.keepDraft(beforeTyped(busy && !begun() ? busy.draft : ""));
  if (busy && begun()) {
    lastTurn().finish = "cancelled";
    keep();
  }
});

document.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".drawer, .tools")) closeDrawers();
});
// A phone's keyboard may cover the page without making it smaller: the composer stays above it, and what is not needed
// for writing makes room.
function fitHeight() {
  const height = window.visualViewport?.height ?? window.innerHeight;
  document.documentElement.style.setProperty("--page-height", `${height}px`);
  document.body.classList.toggle("short", height < 560);
}
window.visualViewport?.addEventListener("resize", fitHeight);
fitHeight();

if (!narrow.matches) togglePanel("show-conversations");
if (window.matchMedia("(min-width: 1200px)").matches) togglePanel("show-settings");
speak(props.value);
part("chat-tokens").addEventListener("click", () => window.llamaDemo.tokens());
whenMounted("conversation-list", list.connect);
whenMounted("message", focusBox);
const linked = followLink();
if (linked && !models.includes(linked)) say("chat-error", filled(words.link_no_model, { model: linked.slice(0, TITLE) }));
else if (linked) conversation.settings = { ...(conversation.settings ?? untouched), model: linked };
whenReady("chat", () => fillBox("chat", store.takeDraft()));
show();
whenMounted("seed", () => trigger("restore")); // without it Gradio shows an empty seed as 0