// How a conversation looks in Gradio's Chatbot: pure functions from turns to its messages.
const GUARD = "\u2060";

// Makes text that looks like HTML show as it was written instead of vanishing in the sanitizer, and keeps pictures of
// other servers from being fetched. Code blocks are left as they are: Markdown shows them literally.
function shown(text) {
  let fence = "";
  return text
    .split("\n")
    .map((line) => {
      const [, mark = "", rest = ""] = line.match(/^ {0,3}(`{3,}|~{3,})(.*)/) ?? [];
      const opens = mark && !(mark[0] === "`" && rest.includes("`")); // else it is code within the line
      if (opens && !fence) fence = mark;
      else if (fence && mark[0] === fence[0] && mark.length >= fence.length && !rest.trim()) fence = "";
      else if (fence) return line;
      return line.replace(/<(?=[a-zA-Z/!?])/g, `<${GUARD}`).replace(/!(?=\[)/g, `!${GUARD}`);
    })
    .join("\n");
}

// The opposite, for text that comes back from an editor or leaves through the clipboard.
function plain(text) {
  return text.replaceAll(`<${GUARD}`, "<").replaceAll(`!${GUARD}`, "!");
}

function fenced(text) {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map((run) => run[0].length));
  const fence = "`".repeat(longest + 1);
  return `${fence}text\n${text}\n${fence}`;
}

function message(role, text, title) {
  const metadata = title ? { title, status: "done" } : null;
  return { role, content: [{ type: "text", text }], metadata, options: null };
}

// Whether more might have come.
function isCut(turn) {
  return ["length", "cancelled"].includes(turn.finish);
}

// That the reply's prompt lacks the oldest turns.
function droppedLine(turn, words) {
  return turn?.dropped ? filled(words.dropped, { count: turn.dropped }) : "";
}

// The Chatbot's messages for `turns`, and for each of them the index of its turn and its thumb.
function chatMessages(turns, words) {
  const messages = [];
  const places = [];
  const ratings = [];
  let model = null;
  turns.forEach((turn, index) => {
    const add = (...parts) => {
      messages.push(message(turn.role, ...parts));
      places.push(index);
      if (turn.role === "assistant") ratings.push(null); // Gradio counts these alone
    };
    if (turn.role !== "assistant") {
      add(shown(turn.content));
      return;
    }
    if (model && turn.model && turn.model !== model) add(`*${filled(words.model_changed, { model: shown(turn.title || turn.model) })}*`);
    model = turn.model || model;
    add(shown(turn.content));
    ratings[ratings.length - 1] = { like: "Like", dislike: "Dislike" }[turn.rating] ?? null;
    if (turn.figures) {
      const { figures } = turn;
      const prompt = turn.prompt ? fenced(turn.prompt) : words.no_prompt;
      const by = filled(turn.remote ? words.details_remote : words.details, {
        model: turn.title || turn.model || "",
        seed: turn.seed ?? "?",
        tokens: figures.read,
      });
      const details = [by, droppedLine(turn, words)].filter(Boolean).join(" ");
      const line = figuresLine(figures, words, { finish: isCut(turn) ? turn.finish : "" });
      add(`${shown(details)}\n\n${prompt}`, `${line} · ${words.prompt}`);
    }
  });
  return { messages, places, ratings };
}
