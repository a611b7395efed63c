/** Lanes of datasets with their events, and below them the runs, on one axis of time. */
import type { SimulationView } from "#routes";
import { useEffect, useRef, useState } from "preact/hooks";
import { type Invented, marks, snapped } from "./events";

const LANE = 34;
const TOP = 26;
const LEFT = 12;

export interface Drawn {
  found: SimulationView;
  events: readonly Invented[];
  from: number;
  to: number;
  cursor: number | undefined;
  add: (dataset: string, time: number) => void;
  choose: (index: number) => void;
}

export function lanesOf({ found, events }: Pick<Drawn, "found" | "events">): string[] {
  const named = found.datasets.filter((each) => !each.includes("*"));
  return [...new Set([...named, ...events.map((each) => each.dataset)])];
}

/** It is a picture: whatever it shows and does, the list and the form below do, too. */
export function Drawing(props: Drawn) {
  const { found, events, from, to } = props;
  const box = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(800);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.max(280, entry!.contentRect.width)));
    observer.observe(box.current!);
    return () => observer.disconnect();
  }, []);
  const lanes = lanesOf(props);
  const runsAt = TOP + lanes.length * LANE + LANE / 2;
  const height = runsAt + LANE;
  const x = (time: number) => LEFT + ((time - from) / Math.max(1, to - from)) * (width - 2 * LEFT);
  const y = (dataset: string) => TOP + lanes.indexOf(dataset) * LANE + LANE / 2;
  const lost = new Map(found.outcomes?.map((each) => [each.event, each.outcome]));
  const consumed = new Set(found.runs.flatMap((run) => run.events ?? []));
  return (
    <div class="timeline" ref={box}>
      <svg width={width} height={height} role="img" aria-label={`Events of ${lanes.length} datasets, and ${found.runs.length} runs`}>
        {marks(from, to).map((at) => (
          <g key={at} class="mark">
            <line x1={x(at)} x2={x(at)} y1={TOP - 6} y2={height - 4} />
            <text x={x(at)} y={14} text-anchor={x(at) > width - 60 ? "end" : x(at) < 40 ? "start" : "middle"}>
              {labelOf(at, from, to)}
            </text>
          </g>
        ))}
        {lanes.map((lane) => (
          <g
            key={lane}
            class="lane"
            onClick={(event) => {
              const bounds = event.currentTarget.ownerSVGElement!.getBoundingClientRect();
              const share = (event.clientX - bounds.left - LEFT) / (width - 2 * LEFT);
              props.add(lane, snapped(share, from, to));
            }}
          >
            <rect x={0} y={y(lane) - LANE / 2} width={width} height={LANE} />
            <line x1={LEFT} x2={width - LEFT} y1={y(lane)} y2={y(lane)} />
            <text x={LEFT} y={y(lane) - 6}>
              {lane}
            </text>
          </g>
        ))}
        <g class="lane runs">
          <line x1={LEFT} x2={width - LEFT} y1={runsAt} y2={runsAt} />
          <text x={LEFT} y={runsAt + 16}>
            runs
          </text>
        </g>
        {found.runs.map((run, index) =>
          (run.events ?? []).map((event) => (
            <line
              key={`${index} ${event}`}
              class="consumes"
              x1={x(Date.parse(events[event]!.time))}
              y1={y(events[event]!.dataset)}
              x2={x(Date.parse(run.at))}
              y2={runsAt}
            />
          )),
        )}
        {events.map((event, index) => {
          const at = Date.parse(event.time);
          if (at < from || at > to) return null;
          const outcome = consumed.has(index) ? "consumed" : (lost.get(index) ?? "pending");
          return (
            <g key={index} class={`s-${outcome}`} onClick={() => props.choose(index)}>
              <circle class={`event ${outcome}`} cx={x(at)} cy={y(event.dataset)} r={7} />
              <title>{`${event.dataset} at ${labelOf(at, from, to)}: ${outcome}`}</title>
            </g>
          );
        })}
        {found.runs.map((run, index) => (
          <g key={index} class={run.refused ? "s-failed" : "s-running"}>
            <rect class="run" x={x(Date.parse(run.at)) - 6} y={runsAt - 8} width={12} height={16} rx={3} />
            <title>{`Run ${index + 1}: ${run.refused ?? run.cause}`}</title>
          </g>
        ))}
        {props.cursor !== undefined && (
          <line class="cursor" x1={x(props.cursor)} x2={x(props.cursor)} y1={TOP - 6} y2={height} />
        )}
      </svg>
    </div>
  );
}

export function labelOf(at: number, from: number, to: number): string {
  const text = new Date(at).toISOString();
  if (to - from > 4 * 86_400_000) return text.slice(5, 10);
  if (text.slice(0, 10) !== new Date(from).toISOString().slice(0, 10) || to - from > 86_400_000) {
    return `${text.slice(5, 10)} ${text.slice(11, 16)}`;
  }
  return text.slice(11, 16);
}
