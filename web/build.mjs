// node build.mjs OUT: bundles the page. File names carry a digest of their content, so browsers may
// keep them for ever.
import { build } from "esbuild";
import { copyFile, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";

const out = process.argv[2];
await rm(out, { recursive: true, force: true });
await mkdir(join(out, "assets"), { recursive: true });

const shared = {
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  outdir: join(out, "assets"),
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  metafile: true,
  legalComments: "none", // THIRD_PARTY.txt has the licences whole
  jsx: "automatic",
  jsxImportSource: "preact",
  logLevel: "warning",
  charset: "utf8",
};

/** Views that are loaded when they are opened also import all that the first view has, which is there by
 *  then. Without this the first view is cut into a file for each set of views that share a part of it,
 *  and browsers load six files at a time.
 */
const firstViewWhole = {
  name: "first-view-whole",
  async setup({ onLoad }) {
    const late = new Set();
    for (const name of await readdir("src", { recursive: true })) {
      if (!/\.tsx?$/.test(name)) continue;
      const text = await readFile(join("src", name), "utf8");
      for (const [, path] of text.matchAll(/\bimport\("(\.[^"]+)"\)/g)) late.add(resolve("src", dirname(name), path));
    }
    const shell = JSON.stringify(resolve("src/shell.tsx"));
    onLoad({ filter: /\.tsx$/ }, async ({ path }) => {
      if (!late.has(path.replace(/\.tsx$/, ""))) return undefined;
      return { contents: `${await readFile(path, "utf8")}\nimport ${shell};\n`, loader: "tsx" };
    });
  },
};

function nameOf(result, entry) {
  const found = Object.entries(result.metafile.outputs).find(([, each]) => each.entryPoint === entry);
  return `assets/${basename(found[0])}`;
}

const worker = await build({ ...shared, entryPoints: ["src/live/stream.worker.ts"] });
const define = { STREAM_WORKER: JSON.stringify(nameOf(worker, "src/live/stream.worker.ts")) };
const main = await build({
  ...shared,
  splitting: true,
  define,
  plugins: [firstViewWhole],
  entryPoints: ["src/main.tsx", "src/style.css"],
});

/** What an entry needs at once, so that browsers ask for it together with the entry. */
function neededBy(result, entry) {
  const { outputs } = result.metafile;
  const found = new Set();
  const follow = (path) => {
    for (const each of outputs[path].imports) {
      if (each.kind !== "import-statement" || found.has(each.path)) continue;
      found.add(each.path);
      follow(each.path);
    }
  };
  follow(Object.keys(outputs).find((path) => outputs[path].entryPoint === entry));
  return [...found].sort().map((path) => `assets/${basename(path)}`);
}

const first = neededBy(main, "src/main.tsx");
const early = first.map((name) => `<link rel="modulepreload" href="/ui/${name}">`);
const page = (await readFile("index.html", "utf8"))
  .replace("%EARLY%", early.join("\n    "))
  .replace("%STYLE%", nameOf(main, "src/style.css"))
  .replace("%MAIN%", nameOf(main, "src/main.tsx"));
await writeFile(join(out, "index.html"), page);
// What a view needs beside, by the address of the view: the server names it in a header of the page, so
// that it comes together with the entry, not after it.
const views = JSON.parse(await readFile("early.json", "utf8")).map(({ path, tab, files }) => {
  const needed = files.flatMap((file) => [nameOf(main, file), ...neededBy(main, file)]);
  return { path, tab, files: [...new Set(needed)].filter((name) => name !== nameOf(main, "src/main.tsx") && !first.includes(name)) };
});
await writeFile(join(out, "early.json"), JSON.stringify(views));
await copyFile("icon.svg", join(out, "icon.svg"));

const bundled = new Set();
for (const path of [worker, main].flatMap((each) => Object.keys(each.metafile.inputs))) {
  const name = path.match(/node_modules\/((?:@[^/]+\/)?[^/]+)\//)?.[1];
  if (name) bundled.add(name);
}
const notices = [];
for (const name of [...bundled].sort()) {
  const folder = join("node_modules", name);
  const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const file = (await readdir(folder)).find((each) => /^licen[cs]e/i.test(each));
  const text = file ? await readFile(join(folder, file), "utf8") : `Licence: ${license}\n`;
  notices.push(`${name} ${version} (${license})\n\n${text.trim()}\n`);
}
await writeFile(join(out, "THIRD_PARTY.txt"), notices.join("\n\n"));
