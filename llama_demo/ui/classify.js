// The classification tab's own state: which request is on its way, and what the controls hold, kept in this browser.
const KEY = "llama-demo.classify";
const RESULTS = { use: "classify-found", train: "train-found", export: "kept-said", push: "push-said" };
const SILENCE = 3000;
const running = {}; // by kind: the name of the request that is on its way
let { words } = props.value;

function read() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY));
    return Array.isArray(kept) ? kept : [];
  } catch {
    return [];
  }
}

function end(kind) {
  delete running[kind];
  document.body.classList.remove(`classify-${kind}-busy`);
}

window.llamaDemoClassify = {
  // The first input of every request is its name and the visitor's language.
  begin(kind, [, ...values]) {
    running[kind] = randomId();
    document.body.classList.add(`classify-${kind}-busy`);
    say("classify-lost", "");
    return [{ id: running[kind], language: window.llamaDemoLanguage }, ...values];
  },
  // What was found is brought into sight.
  end(kind) {
    if (running[kind]) part(RESULTS[kind])?.scrollIntoView({ block: "nearest", behavior: "smooth" });
    end(kind);
  },
  name: (kind) => running[kind] ?? "",
  language: () => ({ language: window.llamaDemoLanguage }),
  keep(values) {
    try {
      localStorage.setItem(KEY, JSON.stringify(values));
    } catch {
      say("classify-lost", words.not_kept);
    }
  },
  restored(values) {
    const kept = read();
    document.body.classList.add("classify-ready");
    return kept.length === values.length ? kept : values;
  },
};

document.addEventListener("keydown", (event) => {
  if (!part("classify-views")?.checkVisibility()) return;
  const shown = (id) => part(id)?.checkVisibility();
  const pressed = (ids) => part(ids.find(shown) ?? "")?.click();
  if (event.key === "Escape") pressed(["classify-stop", "train-stop", "kept-stop", "push-stop"]);
  else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    pressed(["classify-go", "train-go"]);
  }
});
// Gradio does not say that a stream broke off. The header asks how the server is, and tells if it is away.
setInterval(() => {
  if (Object.keys(running).length) window.dispatchEvent(new CustomEvent("llama-demo:status"));
}, SILENCE);
window.addEventListener("llama-demo:away", () => {
  if (!Object.keys(running).length) return;
  Object.keys(running).forEach(end);
  say("classify-lost", words.lost);
});
watch("value", () => {
  ({ words } = props.value);
  trigger("refresh");
});
trigger("restore");
trigger("refresh");
