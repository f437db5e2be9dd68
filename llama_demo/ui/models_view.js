// Draws what the Models tab is told: bars of memory, groups of cards. It keeps what has not changed, so that nothing
// moves while one reads, and a button keeps the focus when its card is drawn anew.
// Draws `items` into `place`, each by its name; one that says the same as before stays as it is.
function drawKeyed(place, items, draw) {
  const there = new Map([...place.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, index) => {
    const said = JSON.stringify(item);
    let child = there.get(item.name);
    if (!child || child.said !== said) {
      const fresh = draw(item, child);
      fresh.dataset.key = item.name;
      fresh.said = said;
      if (child && child !== fresh) swap(child, fresh);
      child = fresh;
    }
    there.delete(item.name);
    if (place.children[index] !== child) place.insertBefore(child, place.children[index] ?? null);
  });
  for (const gone of there.values()) gone.remove();
}

function swap(old, fresh) {
  const focused = old.contains(document.activeElement) ? document.activeElement.dataset : null;
  const open = [...old.querySelectorAll("details")].map((details) => details.open);
  [...fresh.querySelectorAll("details")].forEach((details, index) => (details.open = open[index] ?? details.open));
  old.replaceWith(fresh);
  if (!focused) return;
  const same = [...fresh.querySelectorAll("button")];
  (same.find((button) => button.dataset.do === focused.do) ?? same[0])?.focus({ preventScroll: true });
}

function drawDevice(device, act) {
  const made = make("section", { className: "device" });
  const head = make("p", { className: "device-words" }, device.words);
  head.title = device.help;
  const bar = make("div", { className: "memory-bar" });
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", [device.words, ...device.parts.map((part) => `${part.title} ${part.size}`)].join(", "));
  const list = make("ul", { className: "memory-list" });
  device.parts.forEach((part, index) => {
    const share = make("span", { className: `part-${index % 5}` });
    share.style.width = `${Math.max(0.5, Math.min(100, part.share * 100))}%`;
    share.dataset.state = part.state;
    share.title = `${part.title} · ${part.size}`;
    bar.append(share);
    const line = make("li");
    const name = make("span", { className: "part-name" }, part.title);
    name.title = part.help;
    line.append(make("i", { className: `part-${index % 5}` }), name, make("span", { className: "subdued" }, `${part.size} · ${part.state_words}`));
    if (part.unload) line.append(actionButton("unload", part.unload, part.name, part.title, act));
    list.append(line);
  });
  if (device.empty) list.append(make("li", { className: "subdued" }, device.empty));
  made.append(head, bar, list);
  return made;
}

function actionButton(action, label, name, title, act) {
  const button = make("button", { className: action === "load" ? "go" : "quiet" }, label);
  button.dataset.do = action;
  button.setAttribute("aria-label", `${label}: ${title}`);
  button.addEventListener("click", () => act(action, name));
  return button;
}

function drawGroup(group, old, draw) {
  const made = old ?? make("section", { className: "group" });
  if (!old) made.append(make("h3"), make("p", { className: "subdued" }), make("div", { className: "model-cards" }));
  const [title, help, cards] = made.children;
  if (title.textContent !== group.title) title.textContent = group.title;
  if (help.textContent !== group.help) help.textContent = group.help;
  drawKeyed(cards, group.cards, draw);
  return made;
}

function drawCard(card, words, act) {
  const made = make("article", { className: "model-card" });
  made.dataset.where = card.where;
  made.dataset.state = card.state;
  const head = make("div", { className: "model-head" });
  head.append(make("h4", {}, card.title), make("span", { className: "badge" }, card.badge));
  made.append(head, make("p", {}, card.good_for));
  const facts = make("p", { className: "subdued" }, card.facts);
  if (card.link) {
    const link = make("a", {}, card.link_words);
    Object.assign(link, { href: card.link, target: "_blank", rel: "noopener noreferrer" });
    link.setAttribute("aria-label", `${card.link_words}: ${card.title}`);
    facts.append(" · ", link);
  }
  made.append(facts);
  if (card.needs) made.append(make("p", { className: "subdued needs" }, card.needs));
  if (card.helps.length) {
    const helps = make("ul", { className: "helps" });
    for (const help of card.helps) helps.append(make("li", {}, help));
    made.append(make("p", { className: "helps-title" }, words.helps), helps);
  }
  if (card.state_words) {
    const state = make("p", { className: card.failed ? "error" : "model-state" }, card.state_words);
    state.setAttribute("role", "status");
    made.append(state);
  }
  if (card.refusal) made.append(make("p", { className: "error" }, card.refusal));
  if (card.pushed) made.append(make("p", { className: "model-state" }, card.pushed));
  if (card.job) made.append(make("p", { className: card.job.failed ? "error" : "model-state" }, card.job.words));
  const share = card.job ? card.job.share : card.progress;
  if (share !== null) made.append(progressBar(card.title, share));
  const actions = make("div", { className: "model-actions" });
  for (const { do: action, label } of card.actions) actions.append(actionButton(action, label, card.name, card.title, act));
  if (card.actions.length) made.append(actions);
  return made;
}

// A bar that is `share` full; one that only moves where nothing is counted.
function progressBar(title, share) {
  const bar = make("progress");
  bar.setAttribute("aria-label", title);
  if (share >= 0) Object.assign(bar, { max: 1, value: share });
  return bar;
}
