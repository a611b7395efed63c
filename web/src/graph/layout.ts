/** Layered layout of a directed graph, from left to right.
 *
 *  Layers by longest path, long edges through points in each layer between, order by the mean of
 *  neighbours (K. Sugiyama et al., 1981), positions by isotonic regression. Edges that close a cycle
 *  are drawn, but do not count.
 */

export interface Placed {
  /** Layer and position of each node. */
  x: number[];
  y: number[];
  /** For each edge the layers and positions that it goes through. */
  edges: { from: number; to: number; points: [number, number][] }[];
  layers: number;
  height: number;
}

const SWEEPS = 12;
const GAP = 1;
const POINT_GAP = 0.45; // beside a point of a long edge

export function layout(count: number, edges: readonly (readonly [number, number])[]): Placed {
  const forward = withoutCycles(count, edges);
  const layer = longestPaths(count, forward);
  const chains = forward.map(([from, to]) => ({ from, to, nodes: [from] }));
  const layers: number[][] = Array.from({ length: Math.max(0, ...layer) + 1 }, () => []);
  for (let node = 0; node < count; node++) layers[layer[node]!]!.push(node);
  const before: number[][] = Array.from({ length: count }, () => []);
  const after: number[][] = Array.from({ length: count }, () => []);
  let size = count;
  for (const chain of chains) {
    for (let at = layer[chain.from]! + 1; at < layer[chain.to]!; at++) {
      layers[at]!.push(size);
      before.push([]);
      after.push([]);
      chain.nodes.push(size++);
    }
    chain.nodes.push(chain.to);
    for (let step = 1; step < chain.nodes.length; step++) {
      after[chain.nodes[step - 1]!]!.push(chain.nodes[step]!);
      before[chain.nodes[step]!]!.push(chain.nodes[step - 1]!);
    }
  }
  const y = order(layers, before, after, size, count);
  const least = Math.min(0, ...y);
  for (let node = 0; node < size; node++) y[node]! -= least;
  const x = Array.from({ length: size }, () => 0);
  layers.forEach((nodes, at) => nodes.forEach((node) => (x[node] = at)));
  return {
    x: x.slice(0, count),
    y: y.slice(0, count),
    edges: chains.map(({ from, to, nodes }) => ({
      from,
      to,
      points: nodes.map((node) => [x[node]!, y[node]!] as [number, number]),
    })),
    layers: layers.length,
    height: Math.max(0, ...y) + 1,
  };
}

function withoutCycles(count: number, edges: readonly (readonly [number, number])[]): [number, number][] {
  const out: number[][] = Array.from({ length: count }, () => []);
  for (const [from, to] of edges) if (from !== to) out[from]!.push(to);
  const state = new Uint8Array(count); // 0 new, 1 on the way, 2 done
  const kept: [number, number][] = [];
  for (let root = 0; root < count; root++) {
    if (state[root]) continue;
    state[root] = 1;
    const way: [number, number][] = [[root, 0]];
    while (way.length) {
      const top = way[way.length - 1]!;
      const next = out[top[0]]![top[1]++];
      if (next === undefined) {
        state[top[0]] = 2;
        way.pop();
      } else if (state[next] !== 1) {
        kept.push([top[0], next]);
        if (!state[next]) {
          state[next] = 1;
          way.push([next, 0]);
        }
      }
    }
  }
  return kept;
}

function longestPaths(count: number, edges: readonly [number, number][]): number[] {
  const out: number[][] = Array.from({ length: count }, () => []);
  const left = new Array<number>(count).fill(0);
  for (const [from, to] of edges) {
    out[from]!.push(to);
    left[to]!++;
  }
  const layer = new Array<number>(count).fill(0);
  const ready = left.flatMap((number, node) => (number ? [] : [node]));
  for (let node = ready.pop(); node !== undefined; node = ready.pop()) {
    for (const next of out[node]!) {
      layer[next] = Math.max(layer[next]!, layer[node]! + 1);
      if (!--left[next]!) ready.push(next);
    }
  }
  return layer;
}

/** Put the nodes of each layer in order; return the position of each node. */
function order(layers: number[][], before: number[][], after: number[][], size: number, count: number): number[] {
  const y = new Array<number>(size).fill(0);
  for (const nodes of layers) spread(nodes, y, count, (_, index) => index);
  const mean = (near: number[][]) => (node: number) => {
    const found = near[node]!;
    if (!found.length) return y[node]!;
    return found.reduce((sum, each) => sum + y[each]!, 0) / found.length;
  };
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const down = sweep % 2 === 0;
    const wish = mean(down ? before : after);
    for (const nodes of down ? layers : layers.toReversed()) {
      const wished = new Map(nodes.map((node) => [node, wish(node)]));
      nodes.sort((a, b) => wished.get(a)! - wished.get(b)!);
      spread(nodes, y, count, (node) => wished.get(node)!);
    }
  }
  return y;
}

/** Place nodes in their order as near to where they wish as their distances allow. */
function spread(nodes: number[], y: number[], count: number, wish: (node: number, index: number) => number): void {
  const offsets: number[] = [];
  let offset = 0;
  nodes.forEach((node, index) => {
    const isPoint = node >= count || (index > 0 && nodes[index - 1]! >= count);
    offset += index ? (isPoint ? POINT_GAP : GAP) : 0;
    offsets.push(offset);
  });
  // Pool adjacent violators: blocks of nodes that touch share their mean.
  const blocks: { sum: number; size: number }[] = [];
  nodes.forEach((node, index) => {
    blocks.push({ sum: wish(node, index) - offsets[index]!, size: 1 });
    for (let last = blocks.length - 1; last > 0; last--) {
      const [a, b] = [blocks[last - 1]!, blocks[last]!];
      if (a.sum / a.size <= b.sum / b.size) break;
      blocks.splice(last - 1, 2, { sum: a.sum + b.sum, size: a.size + b.size });
    }
  });
  let index = 0;
  for (const { sum, size } of blocks) {
    for (let each = 0; each < size; each++, index++) y[nodes[index]!] = sum / size + offsets[index]!;
  }
}
