// How the text tab's text gets into the token view, and goes on from there. It shares the state of `text.js`.

// Goes on with alternative `id` in the place of token `index`: a new branch, by the ids themselves.
function choose(index, id) {
  if (busy) return;
  const scores = tokenView.scores();
  begin(() => {
    keepTyped();
    remember();
    const inside = index >= scores.head;
    const [head, headText] = inside ? [scores.head, scores.headText] : [0, 0];
    const prefix = scores.text.slice(0, headText) + scores.texts.slice(head, index).join("");
    const skip = scores.texts.slice(0, head).join("").length;
    const meta = { kind: "complete", chat: state.chat, head, headText, prefix, from: prefix.length, skip, live: index };
    meta.before = scores.text.slice(0, headText);
    const prompt = [...scores.ids.slice(0, index), id];
    ask({ kind: "complete", sides: [sideRequest(prompt, { n: 1, model: scores.model })] }, meta);
  });
}

// What a continuation said as it ended stays while the tokens that it made are read.
function readTokensAfter() {
  readTokens(part("text-note").textContent);
}

function readTokens(said) {
  const branch = current();
  const chat = window.llamaDemoTokens;
  const meta = { kind: "score", head: 0, headText: 0, newFrom: state.mark?.[0] ?? Infinity, said };
  const data = { kind: "score", model: settings.model };
  if (chat) {
    delete window.llamaDemoTokens;
    keepTyped();
    remember();
    Object.assign(data, chat);
    meta.chatReply = chat.turns.at(-1).content;
  } else if (untouched(branch) && (branch.head || branch.exact)) {
    data.source = branch.ids;
    Object.assign(meta, { head: branch.head, headText: branch.headText });
  } else data.source = state.text;
  if (data.source === "") {
    tokenView.clear();
    show();
    return;
  }
  ask(data, meta);
}

function scored(asked, view) {
  if (!view.scores) return;
  const scores = JSON.parse(view.scores);
  if (asked.chatReply !== undefined) takeChat(asked, scores);
  let characters = 0;
  const before = scores.texts.slice(0, asked.head).join("").length - asked.headText;
  scores.newFrom = scores.texts.findIndex((text) => (characters += text.length) - before > asked.newFrom);
  if (scores.newFrom < 0) scores.newFrom = Infinity;
  tokenView.show({ ...scores, head: asked.head, headText: asked.headText, text: state.text });
}

// Once what is on its way here has been stopped.
function openChat() {
  if (!window.llamaDemoTokens) return;
  if (busy) window.llamaDemoText.stop();
  else setView("tokens");
}
