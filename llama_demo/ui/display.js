// The visitor's language and colour scheme: asked for in the address, else chosen here before, else the browser's.
// Gradio puts it into the page's head when it has chosen a scheme itself.
(() => {
  const kept = (name) => {
    try {
      return localStorage.getItem(`llama-demo:${name}`);
    } catch {
      return null; // storage is turned off: the choice lasts as long as the page
    }
  };
  const keep = (name, value) => {
    try {
      localStorage.setItem(`llama-demo:${name}`, value);
    } catch {}
  };
  const address = new URL(location.href);
  const scheme = address.searchParams.get("__theme") || kept("scheme");
  if (scheme) document.body.classList.toggle("dark", scheme === "dark");
  window.llamaDemoLanguage = address.searchParams.get("lang") || kept("language") || navigator.language.slice(0, 2);
  window.llamaDemoDisplay = {
    chooseLanguage(language) {
      window.llamaDemoLanguage = language;
      keep("language", language);
      if (address.searchParams.has("lang")) {
        address.searchParams.delete("lang");
        history.replaceState(history.state, "", address);
      }
      window.dispatchEvent(new CustomEvent("llama-demo:status"));
      return language;
    },
    switchScheme() {
      keep("scheme", document.body.classList.toggle("dark") ? "dark" : "light");
    },
  };
})();
