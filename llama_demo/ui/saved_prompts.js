// The library of prompts: a small set that comes with the page, in its language, and the visitor's own, kept in this
// browser. A system prompt goes into its setting, a message into the box; nothing is sent.
function promptLibrary(page) {
  const key = "llama-demo.prompts";
  const KINDS = ["system", "message"];
  const dialog = part("prompts");
  let own = [];

  function isPrompt(value) {
    return isObject(value) && isText(value.id) && isText(value.text) && KINDS.includes(value.kind);
  }

  function load() {
    try {
      const value = JSON.parse(localStorage.getItem(key));
      own = Array.isArray(value) ? value.filter(isPrompt) : own;
    } catch {
      // Off or broken: what is in memory stays.
    }
  }

  function save(list) {
    own = list;
    let kept = true;
    try {
      localStorage.setItem(key, JSON.stringify(own));
    } catch {
      kept = false;
    }
    draw();
    say("prompts-note", kept ? "" : page.words().not_kept);
  }

  function use({ kind, text }) {
    dialog.close();
    page.use(kind, text);
  }

  function row(prompt) {
    const name = make("strong", {}, prompt.name || prompt.text.split("\n")[0].slice(0, 60));
    const take = make("button", { className: "take", onclick: () => use(prompt) }, name, make("span", {}, prompt.text));
    const item = make("li", {}, take);
    if (prompt.id) {
      const drop = make("button", { onclick: () => save(own.filter(({ id }) => id !== prompt.id)) }, page.words().delete);
      item.append(drop);
    }
    return item;
  }

  function keepNow(kind) {
    const text = page.now(kind);
    if (!text.trim()) say("prompts-note", page.words().prompts_empty);
    else if (!own.some((prompt) => prompt.kind === kind && prompt.text === text)) {
      save([{ id: randomId(), kind, text }, ...own]);
    }
  }

  function draw() {
    const { words, prompts } = { words: page.words(), prompts: page.builtIn() };
    for (const place of dialog.querySelectorAll("[data-word]")) place.textContent = words[place.dataset.word];
    for (const kind of KINDS) {
      const mine = own.filter((prompt) => prompt.kind === kind);
      const listed = [...mine, ...prompts.filter((prompt) => prompt.kind === kind)];
      part(`prompts-${kind}`).replaceChildren(...listed.map(row));
    }
  }

  for (const kind of KINDS) part(`prompts-keep-${kind}`).addEventListener("click", () => keepNow(kind));
  part("prompts-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("keydown", (event) => event.key === "Escape" && event.stopPropagation());
  return {
    draw,
    open() {
      load();
      draw();
      say("prompts-note", "");
      closeDrawers();
      dialog.showModal();
    },
  };
}
