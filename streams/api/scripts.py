"""What the query endpoint asks Redis, as scripts. `streams.keys` documents the layout.

Each looks at all marks of completeness first, as part of the same question, and returns the number of
partitions, how many of them are not complete, and by which refills the others are; nothing else where one is
not. Values of many hashes come back as one string: a value of its own for each SIM and hour would cost the
client a hundred times what it costs Redis. Each call is bounded, because Redis serves nobody else meanwhile.
"""

from __future__ import annotations

from typing import Final

from streams.keys import LAYOUT, META, MOVED_COVERAGE, partition_key

_MARKS: Final = f"""
local partitions, lacking, fillings = tonumber(redis.call('HGET', '{META}', 'partitions') or '0'), 0, {{}}
for partition = 0, partitions - 1 do
  local held = redis.call('HMGET', '{partition_key(0)[:-1]}' .. partition, 'complete', 'layout', 'filling')
  if held[1] ~= '1' or held[2] ~= '{LAYOUT}' then lacking = lacking + 1 end
  fillings[#fillings + 1] = held[3] or ''
end
local marks = {{partitions, lacking, table.concat(fillings, ' ')}}
if partitions == 0 or lacking > 0 then return marks end
local function answer(...)
  for _, each in ipairs({{...}}) do marks[#marks + 1] = each end
  return marks
end
"""

MARKS: Final = f"{_MARKS} return marks"
"""Returns the marks alone."""

_OF_SIM: Final = """
local function of_sim(prefix, sim, ...)
  local call, runs, parts, read, ranges = redis.call, {}, {}, 0, {...}
  local first, count, size = 0, 0, 0
  -- A number becomes text for a tenth of what its lookup costs; here one in a hundred does.
  local tails, head, hundred = {}, '', -1
  for tail = 0, 99 do tails[tail] = string.format('%02d', tail) end
  local function ended()
    if count > 0 then runs[#runs + 1] = string.format('%d %d %d', first, count, size) end
  end
  for at = 1, #ranges, 2 do
    for hour = tonumber(ranges[at]), ranges[at + 1] - 1 do
      local of = math.floor(hour / 100)
      if of ~= hundred then hundred, head = of, prefix .. of end
      local value = call('HGET', head .. tails[hour - 100 * of], sim)
      if value then
        read = read + 1
        parts[read] = value
        if #value ~= size or hour ~= first + count then
          ended()
          first, count, size = hour, 0, #value
        end
        count = count + 1
      end
    end
  end
  ended()
  return table.concat(runs, ' '), table.concat(parts), ''
end
local function of_days(sums, prefix, sim, ...)
  local call, runs, parts, unsummed, days = redis.call, {}, {}, {}, {...}
  for at = 1, #days, 2 do
    local day, moved = tonumber(days[at]), tonumber(days[at + 1])
    local held = call('HMGET', sums .. days[at], '', sim)
    local filling, tick = string.match(held[1] or '', '^(.*) (%d+)$')
    local value = held[2] or ''
    if filling ~= marks[3] or tonumber(tick) < moved then
      unsummed[#unsummed + 1] = days[at]
      local values = {}
      for hour = 24 * day, 24 * day + 23 do
        values[#values + 1] = call('HGET', string.format('%s%.0f', prefix, hour), sim) or nil
      end
      value = table.concat(values)
    end
    if value ~= '' then
      runs[#runs + 1] = string.format('%.0f 1 %d', day, #value)
      parts[#parts + 1] = value
    end
  end
  return table.concat(runs, ' '), table.concat(parts), table.concat(unsummed, ' ')
end
local function cells_of(kind, ...)
  if kind == 'days' then return of_days(...) else return of_sim(...) end
end
"""

NEWS: Final = f"""{_MARKS}{_OF_SIM}
local tick = tonumber(redis.call('HGET', '{META}', 'tick') or '0')
local since, most = tonumber(ARGV[2]), tonumber(ARGV[3])
if marks[3] ~= ARGV[1] or since > tick then since = -1 end
local function moved(until_, ...)
  return redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', since), until_, 'WITHSCORES', ...)
end
local function told()
  if since == tick then return since, tick, 0 end
  local news, more = moved('+inf', 'LIMIT', 0, most), 0
  if #news == 2 * most then
    -- All that moved at one tick is told at once, so that the tick says how far the reader is.
    tick, more = tonumber(news[#news]), 1
    news = moved(news[#news])
  end
  local hours, windows, covered, members, ticks = {{}}, {{}}, {{}}, {{}}, {{}}
  local function fetch()
    for _, window in ipairs(redis.call('HMGET', KEYS[2], unpack(hours))) do
      windows[#windows + 1] = window or ''
    end
    hours = {{}}
  end
  for at = 1, #news, 2 do
    local member = news[at]
    members[#members + 1], ticks[#ticks + 1] = member, news[at + 1]
    if member == '{MOVED_COVERAGE}' then covered = redis.call('HGETALL', KEYS[3])
    elseif tonumber(member) then
      hours[#hours + 1] = string.format('%.0f', member * 3600)
      if #hours == 1000 then fetch() end
    end
  end
  if #hours > 0 then fetch() end
  return since, tick, more, table.concat(members, ' '), table.concat(ticks, ' '),
    table.concat(windows, '\\n'), table.concat(covered, '\\n')
end
local runs, cells, unsummed = '', '', ''
if #ARGV > 3 then runs, cells, unsummed = cells_of(unpack(ARGV, 4)) end
return answer(runs, cells, unsummed, told())
"""
"""KEYS: moved, aggregates of hours, coverage. ARGV: the refills and the tick that the reader knows, how much
it wants at a time, and what `SERIES` takes, if that is wanted too. Returns what that does; since which tick
and until which; whether more follows; what moved and when; the aggregates of the hours among it; and the
coverage if that moved."""

NAMES: Final = f"{_MARKS} return answer(table.concat(redis.call('HKEYS', KEYS[1]), '\\n'))"
"""KEYS: a hash. Returns the names of its fields."""

ACTIVE: Final = f"""{_MARKS}
local tick, left = redis.call('HGET', '{META}', 'tick') or '0', tonumber(ARGV[1])
local sizes, parts = {{}}, {{}}
for at = 1, #KEYS do
  local held = redis.call('HGETALL', KEYS[at])
  parts[at], sizes[at] = table.concat(held), #held / 2
  left = left - #held
  if left <= 0 then break end
end
return answer(tonumber(tick), table.concat(sizes, ' '), table.concat(parts))
"""
"""KEYS: who was active in days. ARGV: about how many values at a time. Returns the tick, and of the first
days, as many as that allows, how many contexts were active and which in which hours."""

SERIES: Final = f"{_MARKS}{_OF_SIM} return answer(cells_of(unpack(ARGV)))"
"""ARGV: `hours`, prefix of the hours' cells, a SIM, and firsts and ends of runs of hours; or `days`, prefix
of the days' sums, that of the hours' cells, a SIM, and days with the tick at which each moved last. Returns
runs of hours (or days) in which the SIM has alike many bytes of cells (the first, how many, the bytes of
each), the cells, and the days whose sums are not there, or are older than that tick: of those the cells are
the hours'."""

TICK: Final = f"{_MARKS} return answer(tonumber(redis.call('HGET', '{META}', 'tick') or '0'))"
"""Returns the tick."""

SIMS: Final = f"""{_MARKS}
local next, held = unpack(redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2]))
local sims = {{}}
for at = 1, #held, 2 do sims[#sims + 1] = held[at] end
return answer(next, table.concat(sims))
"""
"""KEYS: cells of an hour. ARGV: where to go on, and about how many at a time. Returns where to go on, which
is `0` at the end, and SIMs that have any, maybe again."""

OF_SIMS: Final = f"""{_MARKS}
local parts, sizes = {{}}, {{}}
for at = 1, #ARGV do parts[at] = {{}} end
for _, key in ipairs(KEYS) do
  for at, value in ipairs(redis.call('HMGET', key, unpack(ARGV))) do
    if value then parts[at][#parts[at] + 1] = value end
  end
end
for at = 1, #ARGV do
  parts[at] = table.concat(parts[at])
  sizes[at] = #parts[at]
end
return answer(table.concat(sizes, ' '), table.concat(parts))
"""
"""KEYS: cells of hours. ARGV: SIMs. Returns how many bytes of cells each has, and the cells."""

ASIDE: Final = """
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""
"""KEYS: where a day's sums are written aside. ARGV: for how many seconds, and SIMs with their sums."""

PLACE: Final = f"""{_MARKS}
local count, tick, seconds = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local now = tonumber(redis.call('HGET', '{META}', 'tick') or '0')
if redis.call('HLEN', KEYS[1]) ~= count or marks[3] ~= ARGV[4] or now < tonumber(tick) then
  redis.call('UNLINK', KEYS[1])
  return answer(0)
end
for at = 3, #KEYS do
  local left = redis.call('TTL', KEYS[at])
  if left >= 0 then seconds = math.min(seconds, left) end
end
redis.call('HSET', KEYS[1], '', marks[3] .. ' ' .. tick)
redis.call('RENAME', KEYS[1], KEYS[2])
redis.call('EXPIRE', KEYS[2], seconds)
return answer(1)
"""
"""KEYS: a day's sums that were written aside, where they belong, and the cells that they were made of. ARGV:
how many SIMs there must be, as of which tick and refills they are, and for how many seconds they stay, which
is no longer than their cells do. Returns whether they are in their place."""

CELLS: Final = f"""{_MARKS}
local left = tonumber(ARGV[4])
local listed = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[2], ARGV[3], 'LIMIT', 0, 1000)
local places, sizes, parts = {{}}, {{}}, {{}}
for n, place in ipairs(listed) do
  local key, size, values = ARGV[1] .. place, 0, nil
  if #ARGV > 4 then values = redis.call('HMGET', key, unpack(ARGV, 5))
  else values = redis.call('HVALS', key) end
  for _, value in ipairs(values) do
    if value then
      parts[#parts + 1] = value
      size = size + #value
    end
  end
  places[n], sizes[n] = place, size
  left = left - #values
  if left <= 0 then break end
end
local more = #places < #listed or #listed == 1000
return answer(table.concat(places, ' '), table.concat(sizes, ' '), table.concat(parts), more and 1 or 0)
"""
"""KEYS: list of hours or minutes. ARGV: prefix of their cells, from and to which, about how many values at a
time, and SIMs, if not all are wanted. Returns the places, the bytes of each, their cells, and whether more
follow."""
