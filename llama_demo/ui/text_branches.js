// The branches of the text tab: every continuation that was made, each a click away. It shares the state of `text.js`.

function current() {
  return state.branches.find(({ id }) => id === state.branch) ?? null;
}

// Whether the box holds `branch` as the model wrote it, for this model to go on with.
function untouched(branch) {
  return branch?.ids && branch.text === state.text && branch.model === settings.model && branch.chat === state.chat;
}

function remember() {
  state.past = [...state.past, { text: state.text, mark: state.mark, branch: state.branch }].slice(-KEPT_STEPS);
}

// A text that was typed and is about to give way stays reachable.
function keepTyped() {
  if (!state.text.trim() || state.branches.some(({ text }) => text.startsWith(state.text))) return;
  addBranch({ text: state.text, from: 0, base: state.text.length, ids: null, start: 0, model: settings.model });
}

function addBranch(branch) {
  const made = { id: randomId(), chat: state.chat, head: 0, headText: 0, exact: true, ...branch };
  state.branches = [...state.branches, made].slice(-KEPT_BRANCHES);
  return made;
}

function open(branch, reading = readTokens) {
  state.text = branch.text;
  state.mark = branch.from < branch.text.length && (branch.ids || branch.written) ? [branch.from, branch.text.length] : null;
  state.branch = branch.id;
  box.value = state.text;
  save();
  show();
  if (state.view === "tokens") begin(reading);
}

// What another server wrote has no ids, nor has what broke off: it is a text that goes on as a text.
function keep(asked, side, one) {
  const { prefix, from, fresh } = asked;
  const shared = { text: prefix + one.text, from, base: prefix.length, model: side.model, chat: asked.chat };
  if (!side.prompt_ids) return addBranch({ ...shared, ids: null, start: 0, written: true });
  return addBranch({
    ...shared,
    ids: [...side.prompt_ids, ...one.ids],
    start: side.prompt_ids.length,
    head: fresh ? side.prompt_ids.length : asked.head,
    headText: fresh ? prefix.length : asked.headText,
    exact: one.finish !== "stop" || !stopList().length, // after a stop string the ids have more than the text
  });
}

function take(branch) {
  if (!branch) return;
  if (state.text !== branch.text) {
    keepTyped();
    remember();
  }
  open(branch);
}

// What the chat produced becomes a branch of its own, of which the ids are known.
function takeChat(asked, scores) {
  const text = scores.texts.join("");
  const from = Math.max(0, text.lastIndexOf(asked.chatReply));
  let characters = 0;
  const start = scores.texts.findIndex((piece) => (characters += piece.length) > from);
  const branch = addBranch({ text, from, base: from, ids: scores.ids, start: Math.max(1, start), model: scores.model });
  Object.assign(state, { text, mark: [from, text.length], branch: branch.id });
  box.value = text;
  asked.newFrom = from;
}
