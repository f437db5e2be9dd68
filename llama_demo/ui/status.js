// Keeps the header's texts fresh: often while a model loads, seldom otherwise, never in a hidden tab.
let model = null;
let timer = 0;

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
