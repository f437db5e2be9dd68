// Draws a model's sheet: its parameters as a bar, its attention heads, its configuration, and its tokenizer's playground.
const SVG = "http://www.w3.org/2000/svg";
const HEAD = 11;
const ROW_WIDTH = 420;

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Each group is a key-value head below the query heads that it serves; groups go on in rows.
function drawHeads({ heads, kv_heads: kvHeads, words, queries, keys }) {
  const group = heads / kvHeads;
  const width = group * HEAD + 8;
  const inRow = Math.max(1, Math.min(kvHeads, Math.floor(ROW_WIDTH / width)));
  const height = 48;
  const rows = Math.ceil(kvHeads / inRow);
  const drawn = svg("svg", { viewBox: `0 0 ${inRow * width} ${rows * height}`, role: "img", "aria-label": words, class: "heads" });
  for (let index = 0; index < kvHeads; index += 1) {
    const left = (index % inRow) * width + 2;
    const top = Math.floor(index / inRow) * height;
    const middle = left + (group * HEAD) / 2;
    for (let query = 0; query < group; query += 1) {
      const x = left + query * HEAD;
      drawn.append(svg("line", { x1: x + (HEAD - 2) / 2, y1: top + 12, x2: middle, y2: top + 26 }));
      drawn.append(svg("rect", { x, y: top + 2, width: HEAD - 2, height: HEAD - 1, rx: 2, class: "query" }, svg("title", {}, queries)));
    }
    const wide = Math.min(group * HEAD - 2, 22);
    drawn.append(svg("rect", { x: middle - wide / 2 - 0.5, y: top + 26, width: wide, height: 12, rx: 2, class: "key" }, svg("title", {}, keys)));
  }
  drawn.style.maxWidth = `${inRow * width * 1.7}px`;
  const legend = make("p", { className: "subdued legend" });
  legend.append(make("i", { className: "query" }), queries, make("i", { className: "key" }), keys);
  return [make("p", {}, words), drawn, legend];
}

function drawParts(sheet) {
  const bar = make("div", { className: "memory-bar" });
  const list = make("ul", { className: "memory-list parts" });
  sheet.parts.forEach((each, index) => {
    const share = make("span", { className: `part-${index}`, title: `${each.name} · ${each.percent}`, dataset: { state: "ready" } });
    share.style.width = `${each.share * 100}%`;
    bar.append(share);
    const numbers = [each.count, each.share ? each.percent : "", each.each].filter(Boolean).join(" · ");
    const line = make("li", {}, make("i", { className: `part-${index}` }), make("b", {}, each.name), make("span", {}, numbers));
    line.append(make("span", { className: "subdued" }, each.help));
    list.append(line);
  });
  return [make("p", { className: "total" }, sheet.total), bar, list];
}

function drawFields(fields) {
  const list = make("dl", { className: "fields" });
  for (const field of fields) {
    const value = make("span", { className: "value" }, field.value);
    const about = make("dd", {}, value, make("span", { className: "subdued" }, field.help));
    if (field.note) value.append(make("small", {}, ` (${field.note})`));
    list.append(make("dt", {}, make("code", {}, field.name)), about);
  }
  return [list];
}

function drawFacts(facts) {
  const list = make("dl", { className: "fields" });
  for (const { label, value } of facts) list.append(make("dt", {}, label), make("dd", {}, value));
  return [list];
}

function section(title, ...children) {
  return make("section", {}, make("h4", {}, title), ...children);
}

// The whole sheet; `close` goes back, `split` asks for the tokens of the playground's text.
function drawSheet(sheet, words, close, split) {
  const made = make("article", { className: "sheet" });
  const back = make("button", { className: "quiet", dataset: { do: "back" } }, words.back);
  back.addEventListener("click", close);
  const title = make("h3", { tabIndex: -1 }, sheet.title);
  made.append(back, title, make("p", { className: "subdued" }, sheet.source));
  if (sheet.parts.length) made.append(section(words.parts, ...drawParts(sheet)));
  if (sheet.attention) made.append(section(words.attention, ...drawHeads(sheet.attention)));
  if (sheet.cache.length) made.append(section(words.cache, ...sheet.cache.map((line) => make("p", {}, line))));
  made.append(section(words.tokenizer, ...drawFacts(sheet.tokenizer)));
  if (sheet.can_split) made.append(section(words.playground, ...drawPlayground(words, split)));
  if (sheet.fields.length) made.append(section(words.fields, ...drawFields(sheet.fields)));
  return made;
}

function drawPlayground(words, split) {
  const box = make("textarea", { id: "sheet-text", rows: 2, maxLength: 2000, spellcheck: false, value: words.playground_text });
  box.setAttribute("aria-label", words.playground);
  const bos = make("input", { type: "checkbox", id: "sheet-bos" });
  const result = make("div", { id: "sheet-pieces" });
  result.setAttribute("aria-live", "polite");
  let timer = 0;
  const ask = () => {
    clearTimeout(timer);
    timer = setTimeout(() => split(box.value, bos.checked, result), 250);
  };
  box.addEventListener("input", ask);
  bos.addEventListener("change", ask);
  ask();
  const choice = make("label", {}, bos, words.with_bos);
  return [make("p", { className: "subdued" }, words.playground_help), box, choice, result];
}

function drawPieces(view, words) {
  const row = (title, pieces) => make("div", { className: "pieces" }, ...(title ? [make("h5", {}, title)] : []), ...pieces);
  const pieces = view.pieces.map((piece) => {
    const drawn = make("span", { className: piece.special ? "piece special" : "piece", title: piece.label });
    drawn.append(make("b", {}, piece.raw), make("small", {}, String(piece.id)));
    if (piece.bytes) drawn.append(make("small", { title: words.bytes }, piece.bytes));
    if (piece.differs) drawn.append(make("small", { className: "alone" }, `${words.alone}: “${piece.alone}”`));
    return drawn;
  });
  const made = [make("p", { className: "subdued" }, view.count), row(view.sentencepiece ? words.fast : "", pieces)];
  if (view.sentencepiece) {
    const own = view.sentencepiece.map(({ id, raw }) => make("span", { className: "piece" }, make("b", {}, raw), make("small", {}, String(id))));
    made.push(row(words.sentencepiece, own), make("p", {}, view.agrees));
  }
  if (view.quirk) made.push(make("p", { className: "quirk" }, view.quirk));
  return made;
}
