// Loads Mermaid, which is a classic script, as the module that the pages with diagrams import.
await new Promise((resolve, reject) => {
  const script = document.createElement("script");
  script.src = new URL("mermaid.tiny.js", import.meta.url);
  script.onload = resolve;
  script.onerror = reject;
  document.head.append(script);
});

export default globalThis.mermaid;
