// The text tab's own state: the text, its branches, and the one request that may be on its way.
// A branch is a text that was continued: where its new part begins, and the exact ids that the model saw and wrote.
const { defaults, model, models, presets } = props.value;
const KEY = "llama-demo.text";
const KEPT_BRANCHES = 24;
const KEPT_STEPS = 20;
const SILENCE = 3000;
let { words } = props.value;
let settings = settingsOf(defaults);
let state = read();
const pending = [];
const awaiting = [];
let request = null;
let busy = null;
let cards = null;
let compared = [];
let sides = [];
let figured = null;
let settingsShown = null;
const box = part("text-box");
const tokenView = openTokenView({ choose });

function settingsOf(sampling) {
  return { model, sampling, n: 1, stops: "", trim: false };
}

function emptyState() {
  return { text: "", mark: null, branches: [], branch: null, past: [], chat: false, view: "text", settings: null, sides: null };
}

function read() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY));
    return Array.isArray(kept?.branches) && typeof kept.text === "string" ? { ...emptyState(), ...kept } : emptyState();
  } catch {
    return emptyState();
  }
}

// Whether something was done here: else what is kept may be newer, from another tab of the browser.
let changed = false;
let saving = 0;
function save() {
  changed = true;
  clearTimeout(saving);
  saving = setTimeout(saveNow, 300);
}

function saveNow() {
  clearTimeout(saving);
  if (!changed) return;
  try {
    localStorage.setItem(KEY, JSON.stringify({ ...state, settings }));
  } catch {
    if (!part("text-error").textContent) say("text-error", words.not_kept);
  }
}

// A page where nothing was done goes on with what another one stored; the tokens on its screen would be another text's.
function follow({ key }) {
  if (key !== KEY || changed) return;
  state = { ...read(), sides: state.sides, view: state.view === "tokens" ? "text" : state.view };
  show();
}

// Does `action` with the controls as they are: Gradio gives their values to `start`.
function begin(action) {
  if (busy) return;
  pending.push(action);
  trigger("run");
}

function readSettings([name, temperature, top_p, top_k, min_p, repetition_penalty, max_new_tokens, seed, n, stops, trim]) {
  const sampling = { temperature, top_p, top_k, min_p, repetition_penalty, max_new_tokens };
  return { model: name, sampling: { ...sampling, seed: seed === "" ? null : seed }, n, stops: stops ?? "", trim };
}

function settingsValues({ model: name, sampling, n, stops, trim }) {
  const { temperature, top_p, top_k, min_p, repetition_penalty, max_new_tokens, seed } = sampling;
  return [name, temperature, top_p, top_k, min_p, repetition_penalty, max_new_tokens, seed, n, stops, trim];
}

function stopList() {
  const plain = (line) => line.replaceAll("\\n", "\n").replaceAll("\\t", "\t");
  return settings.stops.split("\n").filter(Boolean).map(plain);
}

function ask(data, meta) {
  busy = { id: randomId(), heard: Date.now(), stopped: false, ...meta };
  request = { id: busy.id, language: window.llamaDemoLanguage, ...data };
  if (meta.said === undefined) say("text-error", "");
  if (meta.kind !== "score") {
    changed = true;
    sayFigures(null);
  }
  if (meta.kind === "complete") cards = null;
  awaiting.push(busy.id);
  show();
  trigger("ask");
}

function sideRequest(prompt, changes = {}) {
  const { model: name, sampling, n, trim } = settings;
  const as_chat = state.chat && typeof prompt === "string";
  return { model: name, prompt, sampling, stops: stopList(), n, trim, as_chat, ...changes };
}

// Continues the text up to `again`'s new part, or to its end.
function generate({ again = false } = {}) {
  const branch = current();
  const same = untouched(branch);
  if (again) keepTyped();
  remember();
  const meta = { kind: "complete", chat: state.chat, head: 0, headText: 0 };
  let prompt;
  if (same && (again || branch.exact)) {
    prompt = again ? branch.ids.slice(0, branch.start) : branch.ids;
    Object.assign(meta, { head: branch.head, headText: branch.headText });
    meta.prefix = again ? branch.text.slice(0, branch.base) : branch.text;
    meta.from = again ? branch.from : branch.text.length;
  } else {
    prompt = again && state.mark ? state.text.slice(0, state.mark[0]) : state.text;
    if (state.chat) prompt = prompt.trimEnd();
    meta.prefix = state.chat ? `${prompt}\n\n` : prompt;
    meta.from = meta.prefix.length;
    meta.fresh = state.chat;
  }
  meta.live = state.view === "tokens" && same ? (again ? branch.start : branch.ids.length) : null;
  ask({ kind: "complete", sides: [sideRequest(prompt)] }, meta);
}

function update(view) {
  if (!busy || view?.id !== busy.id) return;
  busy.heard = Date.now();
  const asked = busy;
  if (view.done) busy = null;
  say("text-note", (view.done ? "" : view.note) || (asked.said ?? ""));
  if (view.error) say("text-error", view.error);
  if (asked.kind === "score") scored(asked, view);
  else if (asked.kind === "compare") sides = view.sides ?? sides;
  else continued(asked, view);
  show();
  if (view.done) {
    saveNow();
    window.dispatchEvent(new CustomEvent("llama-demo:status"));
    openChat();
  }
}

function lost() {
  if (busy) update({ id: busy.id, note: "", error: words.lost, done: true });
}

function continued(asked, view) {
  const side = view.sides?.[0];
  if (side) {
    asked.side = side;
    say("text-note", view.done ? "" : side.note);
    if (side.error) say("text-error", side.error);
    sayFigures(side);
    // The prompt of ids tells what an alternative that was chosen reads like, together with what came before it.
    if (asked.before !== undefined && side.prompt !== undefined && !side.trimmed) asked.prefix = asked.before + side.prompt.slice(asked.skip);
    if (side.parts.length > 1) {
      const first = cards === null;
      cards = { side, ids: null };
      Object.assign(state, { text: asked.prefix, mark: null, branch: null });
      drawText();
      drawCards();
      if (first) part("text-cards").scrollIntoView({ block: "nearest" });
    } else if (side.parts.length) {
      state.text = asked.prefix + side.parts[0].text;
      state.mark = [asked.from, state.text.length];
      drawText(true);
      if (asked.live !== null && asked.live !== undefined) tokenView.live(asked.live, state.text.slice(asked.from));
    }
  }
  if (view.done) finish(asked);
}

// Where the stream broke off, what came of it stays.
function finish(asked) {
  const { side } = asked;
  const parts = side?.parts ?? [];
  const isLonger = (one) => asked.prefix.length + one.text.length > asked.from;
  const made = parts.map((one) => (isLonger(one) ? keep(asked, side, one) : null));
  if (parts.length > 1 && made.some(Boolean)) {
    cards.ids = made.map((branch) => branch?.id);
    if (asked.take !== undefined) take(made[asked.take]);
    return;
  }
  if (made[0]) {
    open(made[0], readTokensAfter);
    return;
  }
  const before = state.past.pop();
  if (before) Object.assign(state, before);
  box.value = state.text;
  if (side && !side.error && parts.some(({ finish: end }) => end === "stop")) say("text-note", words.nothing);
  if (asked.live !== null && asked.live !== undefined) begin(readTokensAfter);
}

// Of what was made last, or of nothing; again where the language changes.
function sayFigures(side = figured) {
  figured = side;
  const trimmed = side?.trimmed ? filled(words.trimmed, { count: side.trimmed }) : "";
  say("text-stats", [trimmed, figuresOf(side)].filter(Boolean).join(" "));
}

function figuresOf(side) {
  return side?.figures ? figuresLine(side.figures, words, side) : "";
}

// Puts the text into the box; while it streams, an end that is in sight stays in sight.
function drawText(streaming = false) {
  const scroll = part("text-scroll");
  const atEnd = scroll.scrollTop + scroll.clientHeight >= scroll.scrollHeight - 24;
  if (box.value !== state.text) box.value = state.text;
  drawBackdrop(part("text-backdrop"), state.text, state.mark);
  if (streaming && atEnd) scroll.scrollTop = scroll.scrollHeight;
}

function drawCards() {
  const place = part("text-cards");
  place.hidden = !cards;
  if (!cards) return;
  const drawn = cards.side.parts.map((one, index) => {
    const id = cards.ids?.[index];
    const stats = filled(words.card_stats, { seed: one.seed, count: one.count });
    const click = () => {
      if (busy) {
        busy.take = index;
        window.llamaDemoText.stop();
      } else take(state.branches.find((branch) => branch.id === id));
    };
    return drawCard({ text: one.text, stats, label: words.take, chosen: id && id === state.branch, take: busy || id ? click : null });
  });
  replaceCards(place, drawn);
}

function show() {
  const classes = document.body.classList;
  classes.toggle("text-busy", busy !== null);
  part("text-column").dataset.view = state.view;
  const empty = !state.text && !busy;
  part("text-intro").hidden = !empty;
  box.readOnly = busy !== null && busy.kind === "complete";
  if (busy?.kind !== "complete") drawText();
  const fresh = state.mark !== null && state.view !== "compare";
  part("text-go").textContent = state.view === "compare" ? words.compare : fresh ? words.accept : words.generate;
  part("text-undo").disabled = busy !== null || !state.past.length;
  part("text-again").disabled = busy !== null || !fresh;
  part("text-branches").inert = busy !== null;
  for (const tab of document.querySelectorAll("#text-views button")) {
    tab.setAttribute("aria-selected", String(tab.dataset.view === state.view));
    tab.disabled = busy !== null && tab.dataset.view !== state.view;
  }
  for (const one of document.querySelectorAll("#text-mode input")) one.checked = (one.value === "chat") === state.chat;
  part("token-view").classList.toggle("empty", !tokenView.scores() && busy?.live == null);
  drawCards();
  if (state.view === "compare") drawSides();
  drawBranches(part("text-branches"), state.branches, state.branch, words.branches, (id) => {
    if (id === state.branch && current().text === state.text) return;
    cards = null;
    sayFigures(null);
    take(state.branches.find((branch) => branch.id === id));
  });
}

function setView(view) {
  if (busy) return;
  state.view = view;
  save();
  show();
  if (view === "tokens") begin(readTokens);
}

function preset(name) {
  begin(() => {
    keepTyped();
    if (state.text) remember();
    const { stops = "", ...sampling } = presets[name];
    settings = { ...settings, stops, sampling: { ...settings.sampling, ...sampling } };
    Object.assign(state, { text: words[`preset_${name}_text`], mark: null, branch: null, chat: false });
    cards = null;
    save();
    show();
    trigger("restore");
    if (window.matchMedia("(hover: hover)").matches) box.focus();
  });
}

function speak(value) {
  words = value.words;
  for (const place of document.querySelectorAll("#text-state [data-word]")) place.textContent = words[place.dataset.word];
  box.placeholder = words.placeholder;
  box.setAttribute("aria-label", words.view_text);
  part("text-mode").setAttribute("aria-label", words.mode);
  part("text-branches").setAttribute("aria-label", words.branches);
  const buttons = Object.keys(presets).map((name) =>
    make("button", { className: "quiet", onclick: () => preset(name) }, words[`preset_${name}`]),
  );
  part("text-presets").replaceChildren(...buttons);
  part("compare-view").replaceChildren();
  tokenView.speak(words);
  sayFigures();
  show();
}

// What the components call; see `text.py`.
window.llamaDemoText = {
  request: () => request,
  start(values) {
    settings = readSettings(values);
    const action = pending.shift();
    if (action && !busy) action();
  },
  restored: () => settingsValues(settings).slice(1),
  // The controls show what `restored` gave them.
  settled() {
    if (document.body.classList.contains("text-ready")) return;
    document.body.classList.add("text-ready");
    if (window.llamaDemoTokens) openChat();
    else if (state.view === "tokens") begin(readTokens);
  },
  defaults: () => settingsValues(settingsOf(defaults)).slice(1),
  stop() {
    if (!busy || busy.stopped) return;
    busy.stopped = true;
    server.stop(busy.id).catch(lost);
  },
  // Gradio's end of the oldest request: by then another one may be on its way.
  ended() {
    const id = awaiting.shift();
    if (busy?.id === id) lost();
  },
  closeDrawers,
  // A text from outside: what was typed stays within reach.
  take(text) {
    keepTyped();
    remember();
    Object.assign(state, { text, mark: null, branch: null, view: "text" });
    box.value = text;
    save();
    show();
  },
};

part("text-go").addEventListener("click", () => begin(state.view === "compare" ? compare : generate));
part("text-stop").addEventListener("click", () => window.llamaDemoText.stop());
part("text-again").addEventListener("click", () => begin(() => generate({ again: true })));
part("text-undo").addEventListener("click", () => {
  if (busy || !state.past.length) return;
  keepTyped();
  Object.assign(state, state.past.pop());
  cards = null;
  sayFigures(null);
  save();
  show();
  if (state.view === "tokens") begin(readTokens);
});
part("show-text-settings").addEventListener("click", () => togglePanel("show-text-settings"));
part("text-views").addEventListener("click", ({ target }) => target.dataset.view && setView(target.dataset.view));
part("text-mode").addEventListener("change", ({ target }) => {
  state.chat = target.value === "chat";
  save();
});
box.addEventListener("input", () => {
  state.mark = movedMark(state.mark, state.text, box.value);
  state.text = box.value;
  drawBackdrop(part("text-backdrop"), state.text, state.mark);
  save();
  if (!state.text || state.mark === null) show();
  part("text-intro").hidden = state.text !== "";
});
document.addEventListener("keydown", (event) => {
  if (!part("text-column")?.checkVisibility()) return;
  if (event.key === "Escape") {
    if (busy) window.llamaDemoText.stop();
    else closeDrawers();
  } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    part("text-go").click();
  }
});
// Gradio does not say that a stream broke off. After a silence the header asks how the server is, and tells if it is away.
setInterval(() => {
  if (busy && Date.now() - busy.heard > SILENCE) window.dispatchEvent(new CustomEvent("llama-demo:status"));
}, SILENCE);
window.addEventListener("llama-demo:away", lost);
window.addEventListener("llama-demo:tokens", openChat);
window.addEventListener("pagehide", saveNow);
window.addEventListener("storage", follow);
watch("value", () => (props.value?.words ? speak(props.value) : update(props.value)));

if (state.settings) settings = { ...settings, ...state.settings, model: settings.model };
state.sides ??= defaultSides();
if (window.matchMedia("(min-width: 1200px)").matches) togglePanel("show-text-settings");
box.value = state.text;
speak(props.value);
whenMounted("text-trim", () => trigger("restore")); // without it Gradio shows an empty seed as 0
