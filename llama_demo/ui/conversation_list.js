// The panel of conversations: searched, opened, renamed, deleted and taken back, exported and imported.
// `page` says which conversation is on the screen, turns to another or opens it, and has the words.
function conversationList(store, page) {
  const search = () => part("conversation-search")?.value.trim().toLocaleLowerCase() ?? "";
  let unfolded = null;
  let renamed = null;
  let deleted = null;

  function matches({ title, turns }, sought) {
    return [title, ...turns.map(({ content }) => content)].some((text) => text.toLocaleLowerCase().includes(sought));
  }

  function action(word, act) {
    return make("button", { onclick: act }, page.words()[word]);
  }

  function note(text, undo) {
    part("conversation-note").replaceChildren(text, ...(undo ? [" ", action("undo_delete", undo)] : []));
  }

  function rename(conversation, title) {
    renamed = null;
    const text = title.trim().slice(0, TITLE);
    if (text && text !== conversation.title) page.change(conversation.id, { title: text, named: true });
    draw();
    part("conversation-list").querySelector(`[data-id="${conversation.id}"] .more`)?.focus();
  }

  function remove(conversation) {
    if (conversation.id === page.current()) page.turnTo(null);
    deleted = store.read(conversation.id);
    store.remove(conversation.id);
    unfolded = null;
    draw();
    note(filled(page.words().deleted, { title: conversation.title || page.words().untitled }), bringBack);
    part("conversation-note").querySelector("button").focus();
  }

  function bringBack() {
    const kept = store.write(deleted);
    draw();
    note(kept ? "" : page.words().not_kept);
    part("conversation-list").querySelector(`[data-id="${deleted.id}"] .title`)?.focus();
  }

  function exportOne(conversation, kind) {
    const name = fileName(conversation.title);
    if (kind === "json") download(`${name}.json`, "application/json", conversationsAsJson([conversation]));
    else download(`${name}.md`, "text/markdown", conversationAsMarkdown(conversation, page.words()));
  }

  // What is there already is left as it is; what has the name of another conversation gets a new one.
  async function take(file) {
    const words = page.words();
    try {
      const found = await readConversations(file);
      let kept = true;
      for (const conversation of found) {
        const same = store.read(conversation.id);
        if (same && JSON.stringify(readConversation(same).turns) === JSON.stringify(conversation.turns)) continue;
        if (same) conversation.id = randomId();
        kept = store.write(conversation) && kept;
      }
      draw();
      note([filled(words.imported, { count: found.length }), kept ? "" : words.not_kept].join(" ").trim());
    } catch (error) {
      note(filled(words[error.message] ?? words.import_unreadable, { file: file.name }));
    }
  }

  function field(conversation) {
    const box = make("input", { value: conversation.title, maxLength: TITLE });
    box.setAttribute("aria-label", page.words().rename);
    box.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Enter") rename(conversation, box.value);
      else if (event.key === "Escape") rename(conversation, "");
      else return;
      event.stopPropagation();
      event.preventDefault(); // else the same Enter presses the button that has the focus now
    });
    box.addEventListener("blur", () => renamed && rename(conversation, box.value));
    setTimeout(() => box.isConnected && box.select());
    return box;
  }

  function row(conversation) {
    const { id, title } = conversation;
    const words = page.words();
    const name = title || words.untitled;
    const item = make("li", { dataset: { id } });
    if (renamed === id) {
      item.append(field(conversation));
      return item;
    }
    const button = make("button", { className: "title", onclick: () => page.open(id) }, name);
    if (id === page.current()) button.setAttribute("aria-current", "true");
    const open = unfolded === id;
    const unfold = () => {
      unfolded = open ? null : id;
      draw();
      part("conversation-list").querySelector(`[data-id="${id}"] .more`)?.focus();
    };
    const more = make("button", { className: "more", title: words.actions, onclick: unfold }, "⋯");
    more.setAttribute("aria-label", filled(words.actions_of, { title: name }));
    more.setAttribute("aria-expanded", String(open));
    item.append(button, more);
    if (open) item.append(actions(conversation));
    return item;
  }

  function actions(conversation) {
    const startRenaming = () => {
      [renamed, unfolded] = [conversation.id, null];
      draw();
    };
    return make(
      "div",
      { className: "actions" },
      action("rename", startRenaming),
      action("as_json", () => exportOne(conversation, "json")),
      action("as_markdown", () => exportOne(conversation, "markdown")),
      action("delete", () => remove(conversation)),
    );
  }

  function draw() {
    const list = part("conversation-list");
    if (!list || (renamed && list.querySelector(`[data-id="${renamed}"] input`))) return;
    const [all, sought] = [store.list(), search()];
    const found = sought ? all.filter((conversation) => matches(conversation, sought)) : all;
    const items = found.map(row);
    if (!items.length) items.push(make("li", {}, all.length ? page.words().nothing_found : page.words().empty_list));
    list.replaceChildren(...items);
    part("conversation-tools").hidden = !all.length;
  }

  function speak(words) {
    for (const place of document.querySelectorAll("#conversation-box [data-word]")) {
      if (place.tagName === "INPUT") place.placeholder = words[place.dataset.word];
      else place.textContent = words[place.dataset.word];
    }
    part("conversation-search").setAttribute("aria-label", words.search);
    part("conversation-note").replaceChildren();
    draw();
  }

  function connect() {
    const chosen = part("conversation-file");
    part("conversation-search").addEventListener("input", draw);
    part("conversation-import").addEventListener("click", () => chosen.click());
    part("conversation-export").addEventListener("click", () =>
      download("conversations.json", "application/json", conversationsAsJson(store.list())),
    );
    chosen.addEventListener("change", async () => {
      for (const file of chosen.files) await take(file);
      chosen.value = "";
    });
    speak(page.words());
  }

  return { draw, connect, speak };
}
