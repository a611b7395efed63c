/** A bar of counts by state, with the same in words beside it. */
import { useEffect, useRef } from "preact/hooks";
import { grouped } from "../core/numbers";

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
        {shown.map(([, count, word]) => `${grouped(count)} ${word}`).join(", ") || "nothing planned"}
        {` of ${grouped(total)}`}
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
