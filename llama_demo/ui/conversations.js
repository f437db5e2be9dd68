// Conversations in this browser's own storage, one entry each, newest first. It knows nothing of the page, and where
// the storage is off or full it keeps what it was given in memory and says so.
function openConversations() {
  const prefix = "llama-demo.conversation.";
  const currentKey = "llama-demo.current";
  const draftKey = "llama-demo.draft";
  const known = new Map();

  function area(name) {
    try {
      return window[name];
    } catch {
      return null; // cookies are off
    }
  }

  function parse(text) {
    try {
      return readConversation(JSON.parse(text));
    } catch {
      return null;
    }
  }

  function load(key, text) {
    const value = text === null ? null : parse(text);
    if (value) known.set(value.id, value);
    else known.delete(key.slice(prefix.length));
  }

  const storage = area("localStorage");
  for (let index = 0; index < (storage?.length ?? 0); index += 1) {
    const key = storage.key(index);
    if (key.startsWith(prefix)) load(key, storage.getItem(key));
  }

  return {
    list: () => [...known.values()].sort((one, other) => other.updated - one.updated),
    read: (id) => known.get(id) ?? null,
    // Whether the browser kept it.
    write(conversation) {
      const text = JSON.stringify(conversation);
      known.set(conversation.id, JSON.parse(text));
      try {
        storage.setItem(prefix + conversation.id, text);
        return true;
      } catch {
        return false;
      }
    },
    remove(id) {
      known.delete(id);
      try {
        storage.removeItem(prefix + id);
      } catch {
        // There is no storage: it was in memory only.
      }
    },
    current() {
      try {
        return area("sessionStorage").getItem(currentKey);
      } catch {
        return null;
      }
    },
    setCurrent(id) {
      try {
        area("sessionStorage").setItem(currentKey, id);
      } catch {
        // A reload will begin with a new conversation.
      }
    },
    // A message that has no reply yet, for the page that a reload brings.
    keepDraft(text) {
      try {
        area("sessionStorage").setItem(draftKey, text);
      } catch {
        // A reload will begin with an empty box.
      }
    },
    takeDraft() {
      try {
        const text = area("sessionStorage").getItem(draftKey);
        area("sessionStorage").removeItem(draftKey);
        return text ?? "";
      } catch {
        return "";
      }
    },
    // Tells which conversation another tab of this browser changed.
    onChange(callback) {
      window.addEventListener("storage", (event) => {
        if (!event.key?.startsWith(prefix)) return;
        load(event.key, event.newValue);
        callback(event.key.slice(prefix.length));
      });
    },
  };
}
