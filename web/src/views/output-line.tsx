/** One line of output. */
import type { LogLineView } from "#routes";

export function Line({ line }: { line: LogLineView }) {
  return (
    <span class={`l l-${line.stream}`}>
      <time dateTime={line.time} title={line.time}>
        {line.time.slice(11, 23)}{" "}
      </time>
      {plain(line.message)}
      {fieldsOf(line)}
    </span>
  );
}

// biome-ignore lint: the escape character is what is looked for
const ANSI = /\u001b\[[0-9;?]*[ -/]*[@-~]/g;

/** Return a line without the colours of a terminal. */
function plain(text: string): string {
  return text.includes("\u001b") ? text.replace(ANSI, "") : text;
}

function fieldsOf(line: LogLineView): string {
  const found = Object.entries(line.fields ?? {});
  return found.map(([name, value]) => ` ${name}=${typeof value === "string" ? value : JSON.stringify(value)}`).join("");
}
