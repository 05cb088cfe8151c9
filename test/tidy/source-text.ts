/** A regular expression may stand where a value may begin: after these, or at the start. */
const BEFORE_VALUE = /(?:^|[=(,:;!&|?{}[+\-*%~^<>\n]|\b(?:return|typeof|case|in|of|await|yield|void))\s*$/;

/**
 * The code of a TypeScript file: comments, regular expressions and (unless `strings` is "keep") strings are blanked, so that words in them
 * are not taken for code. Expressions in templates stay. Line breaks stay, so that line numbers hold.
 * A scanner, not a parser: it is exact enough for this project's style.
 */
export function codeOf(text: string, strings: "blank" | "keep" = "blank"): string {
  const out: string[] = [];
  /** Depth of braces for each template whose expression is open. */
  const templates: number[] = [];
  let index = 0;
  const blankTo = (end: number) => {
    out.push(text.slice(index, end).replaceAll(/[^\n]/g, " "));
    index = end;
  };
  const stringTo = (end: number) => {
    if (strings === "blank") return blankTo(end);
    out.push(text.slice(index, end));
    index = end;
  };
  while (index < text.length) {
    const rest = text.slice(index, index + 2);
    const char = rest[0] ?? "";
    if (rest === "//") blankTo(endOf(text, index, /\n/g));
    else if (rest === "/*") blankTo(endOf(text, index + 2, /\*\//g) + 2);
    else if (char === '"' || char === "'") stringTo(endOfQuoted(text, index));
    else if (char === "`" || (char === "}" && templates.at(-1) === 0)) {
      if (char === "}") templates.pop();
      const end = endOfTemplatePart(text, index + 1);
      if (text[end - 1] === "{") templates.push(0);
      stringTo(end);
    } else if (char === "/" && BEFORE_VALUE.test(out.join("").slice(-80))) blankTo(endOfRegExp(text, index));
    else {
      const depth = templates.pop();
      if (depth !== undefined) templates.push(depth + (char === "{" ? 1 : char === "}" ? -1 : 0));
      out.push(char);
      index += 1;
    }
  }
  return out.join("");
}

function endOf(text: string, from: number, mark: RegExp): number {
  mark.lastIndex = from;
  return mark.exec(text)?.index ?? text.length;
}

function endOfQuoted(text: string, start: number): number {
  let index = start + 1;
  while (index < text.length && text[index] !== text[start] && text[index] !== "\n")
    index += text[index] === "\\" ? 2 : 1;
  return index + 1;
}

/** After the closing backtick, or after the `${` that opens an expression. */
function endOfTemplatePart(text: string, from: number): number {
  let index = from;
  while (index < text.length) {
    if (text[index] === "`") return index + 1;
    if (text[index] === "$" && text[index + 1] === "{") return index + 2;
    index += text[index] === "\\" ? 2 : 1;
  }
  return index;
}

function endOfRegExp(text: string, start: number): number {
  let index = start + 1;
  let inClass = false;
  while (index < text.length && text[index] !== "\n" && (inClass || text[index] !== "/")) {
    if (text[index] === "[") inClass = true;
    if (text[index] === "]") inClass = false;
    index += text[index] === "\\" ? 2 : 1;
  }
  return index + 1;
}
