import assert from "node:assert/strict";
import { test } from "node:test";
import { iso, marks, readEvent, snapped, writeEvent } from "../src/views/simulator/events.ts";

test("an event that is written is read again", () => {
  const time = "2026-11-20T09:00:00Z";
  for (const event of [
    { time, dataset: "s3://lake/a" },
    { time, dataset: "s3://lake/a", partition: "2026-11-20|eu west" },
    { time, dataset: "s3://lake/a", extra: { rows: 3, text: "{ }" } },
    { time, dataset: "s3://lake/a", partition: "eu", extra: { rows: 3 } },
  ]) {
    assert.deepEqual(readEvent(writeEvent(event)), event);
  }
  for (const text of ["", "09:00", "never s3://a", `${time} s3://a {`, `${time} s3://a {x}`]) {
    assert.equal(readEvent(text), undefined, text);
  }
});

test("marks lie within the time, and are few", () => {
  const from = Date.parse("2026-11-20T08:17:00Z");
  for (const hours of [0.1, 1, 5, 24, 100, 2000, 9000]) {
    const to = from + hours * 3_600_000;
    const found = marks(from, to);
    assert.ok(found.length >= 1 && found.length <= 9, `${hours}: ${found.length}`);
    assert.ok(found.every((at) => at >= from && at <= to));
    for (const share of [0, 0.33, 1]) {
      const at = snapped(share, from, to);
      assert.ok(at >= from && at <= to);
      assert.ok(iso(at).endsWith("Z"));
    }
  }
});
