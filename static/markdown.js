// Markdown shown as it grows: blocks of a text as elements, made by hand and never from markup.
//
// What a model writes is text that somebody else may have put into its mouth: nothing of it is ever parsed as HTML, a
// link goes to http, https or mailto only, and images are links. No text may take longer than its length says, or nest
// deeper than a browser can. A subset of CommonMark: paragraphs, headings, lists, quotes, fenced code, rules; code,
// emphasis, links.

import { make } from "./stream.js";

const FENCE = /^ {0,3}(```+|~~~+)\s*([\w+#.-]*)/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*)$/;
const ITEM = /^ {0,3}(?:[-*+]|(\d{1,9})[.)])\s+(.*)$/;
// The same within a list, however far it is indented.
const POINT = /^(\s*)(?:[-*+]|(\d{1,9})[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}>\s?(.*)$/;
const RULE = /^ {0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$/;
const INLINE =
  /(?<!`)(`+)(?!`)(?<code>[^`]|[^`][\s\S]*?[^`])\1(?!`)|!?\[(?<label>[^[\]]{1,500})\]\((?<url>[^\s()]{1,2000})\)|\*\*(?<strong>[^\s*](?:[^*]*[^\s*])?)\*\*|(?<![\w*])\*(?<em>[^\s*](?:[^*]*[^\s*])?)\*(?![\w*])|(?<bare>https?:\/\/[^\s<>"')\]]{1,2000}[^\s<>"')\].,;:!?])/;
const DEEPEST = 16;

/** Show `text`, and what it grows to, in `element`: only the blocks that changed are made anew. */
export class Markdown {
  #element;
  #depth;
  #sources = [];

  constructor(element, depth = 0) {
    [this.#element, this.#depth] = [element, depth];
  }

  show(text) {
    const sources = blocks(text);
    let same = 0;
    while (same < sources.length && sources[same] === this.#sources[same]) same += 1;
    while (this.#element.childNodes.length > same) this.#element.lastChild.remove();
    for (const source of sources.slice(same)) this.#element.append(block(source, this.#depth));
    this.#sources = sources;
  }
}

/** The text of each block: lines up to an empty one, or to the end of a fence. */
function blocks(text) {
  const found = [];
  let lines = [];
  let fence = null;
  const end = () => {
    if (lines.length) found.push(lines.join("\n"));
    lines = [];
  };
  for (const line of text.split("\n")) {
    if (fence) {
      lines.push(line);
      if (line.trim().startsWith(fence) && !line.trim().slice(fence.length).trim()) {
        fence = null;
        end();
      }
      continue;
    }
    const opened = FENCE.exec(line);
    if (opened) end();
    if (opened) fence = opened[1];
    if (HEADING.test(line) || RULE.test(line)) end();
    if (line.trim()) lines.push(line);
    else end();
    if (HEADING.test(line) || RULE.test(line)) end();
  }
  end();
  return found;
}

function block(source, depth) {
  const lines = source.split("\n");
  const fence = FENCE.exec(lines[0]);
  if (fence) return code(lines, fence);
  const heading = HEADING.exec(lines[0]);
  if (heading) return filled(`h${Math.min(6, heading[1].length + 2)}`, unclosed(heading[2]));
  if (RULE.test(source)) return make("hr");
  if (depth < DEEPEST && lines.every((line) => QUOTE.test(line))) {
    const quote = make("blockquote");
    new Markdown(quote, depth + 1).show(lines.map((line) => QUOTE.exec(line)[1]).join("\n"));
    return quote;
  }
  return ITEM.test(lines[0]) ? list(lines) : filled("p", source);
}

/** A heading without the signs that may close it. Not by a pattern, to which many spaces cost their square. */
function unclosed(text) {
  const bare = text.trimEnd();
  let end = bare.length;
  while (bare[end - 1] === "#") end -= 1;
  return end && bare[end - 1].trim() ? bare : bare.slice(0, end).trimEnd(); // C# is a name
}

function code(lines, fence) {
  const closed = lines.length > 1 && lines.at(-1).trim().startsWith(fence[1]);
  const pre = make("pre");
  pre.append(make("code", lines.slice(1, closed ? -1 : undefined).join("\n")));
  return pre;
}

/** A list; what is indented by two more than its own points is a list within the point before. */
function list(lines) {
  const own = indent(lines[0]);
  const [, , number] = POINT.exec(lines[0]);
  const element = make(number ? "ol" : "ul");
  if (number) element.start = Number(number);
  const items = [];
  for (const line of lines) {
    const point = POINT.exec(line);
    const { within } = items.at(-1) ?? {};
    if (point && indent(line) < own + 2) items.push({ text: point[3], within: [] });
    else if (point || within.length) within.push(line);
    else items.at(-1).text += `\n${line.trim()}`;
  }
  for (const { text, within } of items) {
    const item = filled("li", text);
    if (within.length) item.append(list(within));
    element.append(item);
  }
  return element;
}

const indent = (line) => POINT.exec(line)[1].replaceAll("\t", "    ").length;

function filled(name, text) {
  const element = make(name);
  fill(element, text);
  return element;
}

function fill(element, text) {
  let rest = text;
  for (let found; (found = INLINE.exec(rest)); rest = rest.slice(found.index + found[0].length)) {
    element.append(rest.slice(0, found.index), span(found));
  }
  element.append(rest);
}

function span({ 0: source, groups }) {
  if (groups.code !== undefined) return make("code", groups.code);
  if (groups.strong !== undefined) return filled("strong", groups.strong);
  if (groups.em !== undefined) return filled("em", groups.em);
  return link(groups.bare ?? groups.url, groups.bare ?? groups.label) ?? source;
}

/** A link, or null where its address could run something. */
function link(address, label) {
  if (!URL.canParse(address) || !["http:", "https:", "mailto:"].includes(new URL(address).protocol)) return null;
  return make("a", label, { href: address, rel: "noopener noreferrer nofollow", target: "_blank" });
}
