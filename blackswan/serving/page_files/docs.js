// What openapi.json says, to be read by people.
"use strict";

function make(tag, attributes = {}, ...children) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
}

/** Return an example of a content: the one that is given, or that of its schema. */
function exampleOf(content, schemas) {
  if (content.example) return content.example;
  if (content.examples) return Object.values(content.examples)[0].value;
  const name = content.schema?.$ref?.split("/").at(-1);
  return (name ? schemas[name] : content.schema)?.example;
}

function describe(title, contents, schemas) {
  return Object.entries(contents || {}).flatMap(([kind, content]) => {
    const example = exampleOf(content, schemas);
    const lines = [make("p", {}, `${title}: `, make("code", {}, kind))];
    if (example) lines.push(make("pre", { tabIndex: 0 }, JSON.stringify(example, null, 1)));
    return lines;
  });
}

async function show() {
  const key = sessionStorage.getItem("key");
  const response = await fetch("openapi.json", { headers: key ? { "X-API-Key": key } : {} });
  if (!response.ok) throw new Error("the service asks for a key: open the page, then this one");
  const { paths, components } = await response.json();
  const schemas = components?.schemas || {};
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      document.getElementById("api").append(make("section", {},
        make("h3", {}, `${method.toUpperCase()} ${path}`),
        make("p", {}, operation.description || operation.summary || ""),
        ...describe("takes", operation.requestBody?.content, schemas),
        ...describe("answers", operation.responses?.["200"]?.content, schemas)));
    }
  }
}

show().catch((error) => { document.getElementById("said").textContent = error.message; });
