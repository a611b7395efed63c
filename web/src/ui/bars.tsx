/** Runs as bars: of one DAG in a row of a list, and of all over time. */
import type { RunBrief, RunsBucket } from "#routes";
import { to } from "../core/router";
import { absolute, between, duration } from "../core/time";

const ORDER = ["failed", "cancelled", "queued", "running", "success"];
const HEIGHT = 24;

/** The last runs, the newest at the right: height is how long each took; what failed has a foot. */
export function RecentRuns({ runs }: { runs: readonly RunBrief[] }) {
  if (!runs.length) return <span class="faint">never ran</span>;
  const times = runs.map((run) => between(run.created_at, run.ended_at) ?? 0);
  const most = Math.max(...times, 1);
  const failed = runs.filter((run) => run.state === "failed").length;
  const last = runs.at(-1)!;
  const width = runs.length * 7;
  return (
    <a class="recent" href={to("runs", last.run_id)} title={`The last one took ${duration(times.at(-1)!)}`}>
      <svg class="bars" width={width} height={HEIGHT + 4} viewBox={`0 0 ${width} ${HEIGHT + 4}`} aria-hidden="true">
        {runs.map((run, index) => {
          const height = Math.max(3, (times[index]! / most) * HEIGHT);
          return (
            <g key={run.run_id} class={`s-${run.state}`}>
              <rect x={index * 7 + 1} y={HEIGHT - height} width="5" height={height} />
              {run.state === "failed" && <path d={`M${index * 7 + 1} ${HEIGHT + 2.5}h5`} />}
            </g>
          );
        })}
      </svg>
      <span class="hidden">
        Last run: {last.state}; {failed} of the last {runs.length} failed
      </span>
    </a>
  );
}

export interface History {
  since: string;
  until: string;
  bucket_seconds: number;
  history: readonly RunsBucket[];
}

const TOP = 80;

/** Runs by when they were made; each bar leads to the list of its runs. */
export function Histogram({ of, dag }: { of: History; dag?: string }) {
  const start = Date.parse(of.since);
  const step = of.bucket_seconds * 1000;
  const count = Math.round((Date.parse(of.until) - start) / step);
  const totals = of.history.map((bucket) => Object.values(bucket.states).reduce((sum, each) => sum + each, 0));
  const most = Math.max(1, ...totals);
  return (
    <figure class="histogram">
      <svg viewBox={`0 0 ${count * 10} ${TOP + 6}`} preserveAspectRatio="none" class="bars" aria-hidden="true">
        {of.history.map((bucket) => {
          const x = Math.round((Date.parse(bucket.at) - start) / step) * 10;
          let y = TOP;
          const parts = ORDER.filter((state) => bucket.states[state]).map((state) => {
            const height = Math.max(2, (bucket.states[state]! / most) * TOP);
            y -= height;
            return <rect key={state} class={`s-${state}`} x={x + 1} y={Math.max(0, y)} width="8" height={height} />;
          });
          const query = new URLSearchParams({
            since: bucket.at,
            until: new Date(Date.parse(bucket.at) + step).toISOString(),
            ...(dag && { dag }),
          });
          return (
            <a key={bucket.at} href={`${to("runs")}?${query}`} {...({ tabindex: -1 } as object)}>
              <title>{`${absolute(bucket.at)}: ${wordsOf(bucket.states)}`}</title>
              {parts}
              {bucket.states.failed && <rect class="s-failed" x={x + 1} y={TOP + 2} width="8" height="4" />}
            </a>
          );
        })}
        <path class="axis" d={`M0 ${TOP + 0.5}H${count * 10}`} />
      </svg>
    </figure>
  );
}

export function wordsOf(states: Readonly<Record<string, number>>): string {
  return Object.entries(states)
    .sort((one, other) => rank(one[0]) - rank(other[0]))
    .map(([state, count]) => `${count} ${state.replaceAll("_", " ")}`)
    .join(", ");
}

const TELLING = ["failed", "upstream_failed", "running", "up_for_retry", "deferred", "queued", "ready", "cancelled"];

function rank(state: string): number {
  const at = TELLING.indexOf(state);
  return at < 0 ? TELLING.length : at;
}

/** The state that many have as a whole: the most telling one. */
export function tellingOf(states: Readonly<Record<string, number>>): string {
  return Object.keys(states).sort((one, other) => rank(one) - rank(other))[0] ?? "none";
}
