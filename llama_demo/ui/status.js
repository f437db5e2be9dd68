// Keeps the header's texts fresh: often while a model loads, seldom otherwise, never in a hidden tab.
let model = null;
let timer = 0;
let offered = {}; // by the name of each model that may be chosen, whether it can run here
let next = null; // what is to be chosen once it is among them

// The choice itself where it can run here; else the Models tab says why not, and the choice stays as it was.
function choose(name) {
  if (offered[name] !== false) return name;
  window.dispatchEvent(new CustomEvent("llama-demo:show-model", { detail: name }));
  return model ?? Object.keys(offered)[0];
}

function chosen() {
  const name = next !== null && offered[next] ? next : model;
  next = null;
  return name ?? Object.keys(offered)[0];
}

// From the Models tab: `name` becomes the page's model.
async function use(name) {
  next = name;
  await refresh();
  if (next !== null) trigger("offer");
}
window.llamaDemoHeader = { choose, chosen, use };

async function refresh() {
  clearTimeout(timer);
  if (!element.isConnected) return;
  let wait = 10000;
  if (!document.hidden) {
    try {
      const status = await server.read_status({ model, language: window.llamaDemoLanguage });
      element.querySelector("#status-model").textContent = status.model;
      element.querySelector("#status-model").title = status.model_help;
      element.querySelector("#status-model").dataset.state = status.state;
      element.querySelector("#status-memory").textContent = status.memory;
      element.querySelector("#status-profile").textContent = status.profile;
      element.querySelector("#status-profile").title = status.profile_help;
      const before = JSON.stringify(offered);
      offered = status.offered;
      if (JSON.stringify(offered) !== before) trigger("offer");
      wait = status.moving ? 1000 : 10000;
    } catch {
      wait = 5000; // the server is away: the texts stay, and it is asked again
      window.dispatchEvent(new CustomEvent("llama-demo:away"));
    }
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, wait);
}

window.addEventListener("llama-demo:model", (event) => {
  model = event.detail;
  refresh();
});
window.addEventListener("llama-demo:status", refresh);
document.addEventListener("visibilitychange", refresh);
refresh();
