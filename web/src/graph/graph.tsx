/** A graph: links at the places that the layout gives them, and curves between them. */
import type { ComponentChildren } from "preact";
import { useMemo } from "preact/hooks";
import { layout } from "./layout";

export interface GraphNode {
  id: string;
  kind: "task" | "dataset" | "dag";
  name: string;
  href: string;
  state?: string;
  about?: ComponentChildren;
  /** The one that the view is about. */
  chosen?: boolean;
}

const WIDTH = 200;
const HEIGHT = 44;
const ACROSS = 270;
const DOWN = 62;
const EDGE = 20;

export function Graph(props: { label: string; nodes: readonly GraphNode[]; edges: readonly (readonly [string, string])[] }) {
  const key = props.nodes.map((node) => node.id).join("\n") + props.edges.map((edge) => edge.join(">")).join("\n");
  const placed = useMemo(() => {
    const at = new Map(props.nodes.map((node, index) => [node.id, index]));
    const known = props.edges.flatMap(([from, to]): [number, number][] => {
      const [a, b] = [at.get(from), at.get(to)];
      return a === undefined || b === undefined ? [] : [[a, b]];
    });
    return layout(props.nodes.length, known);
  }, [key]);
  const width = EDGE * 2 + (placed.layers - 1) * ACROSS + WIDTH;
  const height = EDGE * 2 + (placed.height - 1) * DOWN + HEIGHT;
  const left = (x: number) => EDGE + x * ACROSS;
  const top = (y: number) => EDGE + y * DOWN;
  return (
    <div class="graph" role="region" aria-label={props.label} tabIndex={0}>
      <div class="canvas" style={{ width: `${width}px`, height: `${height}px` }}>
        <svg class="edges" width={width} height={height} aria-hidden="true">
          {placed.edges.map(({ from, to, points }) => (
            <g key={`${from} ${to}`}>
              <path d={curve(points, left, top)} />
              <path
                class="tip"
                d={`M${left(points.at(-1)![0]) - 7} ${top(points.at(-1)![1]) + HEIGHT / 2 - 4}l7 4-7 4z`}
              />
            </g>
          ))}
        </svg>
        {props.nodes.map((node, index) => (
          <a
            key={node.id}
            class={`node ${node.kind} ${node.state ? `s-${node.state}` : ""} ${node.chosen ? "chosen" : ""}`}
            aria-current={node.chosen ? "true" : undefined}
            href={node.href}
            title={node.name}
            style={{ left: `${left(placed.x[index]!)}px`, top: `${top(placed.y[index]!)}px` }}
          >
            <span>{node.name}</span>
            {node.about}
          </a>
        ))}
      </div>
    </div>
  );
}

function curve(points: [number, number][], left: (x: number) => number, top: (y: number) => number): string {
  const middle = HEIGHT / 2;
  let path = "";
  points.forEach(([x, y], index) => {
    const last = index === points.length - 1;
    const at = top(y) + middle;
    if (index === 0) path = `M${left(x) + WIDTH} ${at}`;
    else {
      const [beforeX, beforeY] = points[index - 1]!;
      const start = left(beforeX) + WIDTH;
      const end = last ? left(x) - 5 : left(x);
      const bend = (start + end) / 2;
      path += `C${bend} ${top(beforeY) + middle} ${bend} ${at} ${end} ${at}`;
      if (!last) path += `H${left(x) + WIDTH}`;
    }
  });
  return path;
}
