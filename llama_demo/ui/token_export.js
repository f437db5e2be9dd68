// A scored text as files, made in the browser.

// What a spreadsheet would take for a formula is made a text by an apostrophe.
function harmless(text) {
  return /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
}

function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = harmless(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function scoresAsRows(scores) {
  return scores.ids.map((id, index) => ({
    index,
    id,
    token: scores.names[id],
    text: scores.texts[index],
    logprob: scores.logprobs[index],
    rank: scores.ranks[index],
    entropy: scores.entropies[index],
    top: scores.top_ids[index].map((other, place) => ({
      id: other,
      token: scores.names[other],
      logprob: scores.top_logprobs[index][place],
    })),
  }));
}

function scoresAsJson(scores) {
  return JSON.stringify({ model: scores.model, perplexity: scores.perplexity, tokens: scoresAsRows(scores) }, null, 1);
}

function scoresAsCsv(scores) {
  const most = Math.max(0, ...scores.top_ids.map((row) => row.length));
  const places = Array.from({ length: most }, (_, place) => place + 1);
  const names = places.flatMap((place) => [`top${place}_id`, `top${place}_token`, `top${place}_logprob`]);
  const lines = [["index", "id", "token", "text", "logprob", "rank", "entropy", ...names]];
  for (const { top, ...row } of scoresAsRows(scores)) {
    const others = places.flatMap((place) => [top[place - 1]?.id, top[place - 1]?.token, top[place - 1]?.logprob]);
    lines.push([...Object.values(row), ...others]);
  }
  return `\ufeff${lines.map((line) => line.map(csvCell).join(",")).join("\r\n")}\r\n`;
}
