/** A bar of counts by state, with the same in words beside it. */
import { useEffect, useRef } from "preact/hooks";

export type Part = readonly [state: string, count: number, word: string];

export function Bar({ label, total, parts }: { label: string; total: number; parts: readonly Part[] }) {
  const shown = parts.filter(([, count]) => count > 0);
  return (
    <div class="progress">
      <div class="stack" role="img" aria-label={`${label}: ${shown.map(([, n, word]) => `${n} ${word}`).join(", ")}`}>
        {shown.map(([state, count, word]) => (
          <Segment key={word} state={state} share={count / Math.max(1, total)} />
        ))}
      </div>
      <span class="faint">
        {shown.map(([, count, word]) => `${count.toLocaleString("en")} ${word}`).join(", ") || "nothing planned"}
        {` of ${total.toLocaleString("en")}`}
      </span>
    </div>
  );
}

function Segment({ state, share }: { state: string; share: number }) {
  const part = useRef<HTMLSpanElement>(null);
  useEffect(() => {
    part.current!.style.flexGrow = String(share);
  }, [share]);
  return <span ref={part} class={`segment s-${state}`} />;
}
