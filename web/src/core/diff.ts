/** The lines by which two texts differ, with some around them. */

export interface Line {
  sign: " " | "-" | "+" | "…";
  text: string;
  before?: number;
  after?: number;
}

const MOST = 4_000_000; // cells of the table; larger parts are shown as replaced whole
const AROUND = 3;

export function diff(before: string, after: string): Line[] {
  const a = before.split("\n");
  const b = after.split("\n");
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const lines: Line[] = [];
  for (let at = 0; at < start; at++) lines.push({ sign: " ", text: a[at]!, before: at + 1, after: at + 1 });
  middle(lines, a.slice(start, a.length - end), b.slice(start, b.length - end), start);
  for (let left = end; left > 0; left--) {
    const at = a.length - left;
    lines.push({ sign: " ", text: a[at]!, before: at + 1, after: b.length - left + 1 });
  }
  return lines;
}

function middle(lines: Line[], a: readonly string[], b: readonly string[], start: number): void {
  const wide = b.length + 1;
  // Length of the longest common subsequence of what follows each pair of lines.
  const table = a.length * b.length <= MOST ? new Uint32Array((a.length + 1) * wide) : undefined;
  if (table) {
    for (let i = a.length - 1; i >= 0; i--) {
      for (let j = b.length - 1; j >= 0; j--) {
        table[i * wide + j] =
          a[i] === b[j]
            ? table[(i + 1) * wide + j + 1]! + 1
            : Math.max(table[(i + 1) * wide + j]!, table[i * wide + j + 1]!);
      }
    }
  }
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (table && i < a.length && j < b.length && a[i] === b[j]) {
      lines.push({ sign: " ", text: a[i]!, before: start + ++i, after: start + ++j });
    } else if (i < a.length && (!table || j === b.length || table[(i + 1) * wide + j]! >= table[i * wide + j + 1]!)) {
      lines.push({ sign: "-", text: a[i]!, before: start + ++i });
    } else {
      lines.push({ sign: "+", text: b[j]!, after: start + ++j });
    }
  }
}

/** Leave out lines that are the same and far from any that differs. */
export function near(lines: readonly Line[]): Line[] {
  const keep = new Uint8Array(lines.length);
  lines.forEach((line, at) => {
    if (line.sign === " ") return;
    keep.fill(1, Math.max(0, at - AROUND), at + AROUND + 1);
  });
  const shown: Line[] = [];
  lines.forEach((line, at) => {
    if (keep[at]) shown.push(line);
    else if (shown.at(-1)?.sign !== "…") shown.push({ sign: "…", text: "" });
  });
  return shown;
}
