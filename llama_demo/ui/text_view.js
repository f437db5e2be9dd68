// Pieces of the text tab that are drawn from plain values: the marked backdrop, the cards, the branches.

// Behind the letters of the box: the same text, unseen, with the new part on a coloured ground.
function drawBackdrop(place, text, mark) {
  const [from, to] = mark ?? [text.length, text.length];
  const part = make("mark", {}, text.slice(from, to));
  place.replaceChildren(text.slice(0, from), part, text.slice(to), "\u200b");
}

// Where `mark` is after the text was edited. What was typed into the new part is new as well; what replaced the whole of
// it, or goes over its beginning, is the visitor's own.
function movedMark(mark, before, after) {
  if (!mark) return null;
  const shorter = Math.min(before.length, after.length);
  let head = 0;
  while (head < shorter && before[head] === after[head]) head += 1;
  let tail = 0;
  while (tail < shorter - head && before.at(-1 - tail) === after.at(-1 - tail)) tail += 1;
  const end = before.length - tail;
  const grown = after.length - before.length;
  if (head <= mark[0] && mark[1] <= end) return null;
  const from = mark[0] <= head ? mark[0] : Math.max(mark[0], end) + grown;
  const to = mark[1] <= head ? mark[1] : mark[1] >= end ? mark[1] + grown : head;
  return from < to ? [from, to] : null;
}

// One of several texts side by side; `take` is called where its button is clicked.
function drawCard({ head = "", text = "", note = "", error = "", stats = "", label, chosen = false, take = null }) {
  const card = make("section", { className: chosen ? "card chosen" : "card" });
  if (head) card.append(head);
  card.append(make("div", { className: "card-text" }, text));
  if (note) card.append(make("p", { className: "note" }, note));
  if (error) card.append(make("p", { className: "error" }, error));
  const foot = make("div", { className: "card-foot" }, make("span", {}, stats));
  if (take) foot.append(make("button", { className: "quiet", onclick: take }, label));
  card.append(foot);
  return card;
}

// Cards are drawn anew while they stream: what the reader has scrolled stays where it was, and an end stays in sight.
function replaceCards(place, cards) {
  const places = [...place.querySelectorAll(".card-text")].map((one) => ({
    top: one.scrollTop,
    end: one.scrollTop + one.clientHeight >= one.scrollHeight - 4,
  }));
  place.replaceChildren(...cards);
  place.querySelectorAll(".card-text").forEach((one, index) => {
    if (places[index]) one.scrollTop = places[index].end ? one.scrollHeight : places[index].top;
  });
}

function snippet(text) {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length > 28 ? `${line.slice(0, 27)}…` : line || "…";
}

function drawBranches(place, branches, current, label, open) {
  const buttons = branches.map((branch, index) => {
    const shown = `${index + 1} · ${snippet(branch.text.slice(branch.from))}`;
    const button = make("button", { className: "quiet", title: branch.text.slice(branch.from, branch.from + 400) }, shown);
    if (branch.id === current) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => open(branch.id));
    return button;
  });
  place.replaceChildren(make("span", {}, label), ...buttons);
  place.hidden = branches.length < 2;
  place.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}
