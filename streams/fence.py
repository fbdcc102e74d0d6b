"""The script that carries out a batch's operations in Redis, if the fence lets the writer through.

==========  ================  ====================  ======================================================
operation   key               field                 value
==========  ================  ====================  ======================================================
`cells`     cells or minute   active, or empty      the SIMs' rows, each behind its SIM
`gone`      cells or minute   active, or empty      SIMs that have no row any more
`list`      list                                    a number: listed, whether it holds anything or not yet
`hour`      list              cells or minute       `number expiry`: listed if it holds anything
`contexts`  contexts          public ids            a line of JSON for each
`set`       a hash            its field             its value
`del`       a hash            its field
`before`    a hash            a pattern of fields   what those captured must not lie before, else they go
`unlist`    list              empty                 number below which all go
`tag`       a set             its member
`move`      moved             its member
`unmove`    moved             a day's member        number of an hour: what is before that and the day goes
`wipe`      any
`forget`    list              prefix of what it lists
`swap`      any               what takes its place
==========  ================  ====================  ======================================================

The version is left with a batch's last call: a copy of Redis that was made between two says what it has.

`active` is four lines: hour of the day and expiry (epoch seconds), key, and key and member of what is to be
noted as moved, or nothing.
"""

from __future__ import annotations

from typing import Final

from streams.cells import CELL_BYTES, ID_BYTES, SIM_BYTES
from streams.keys import META

MANY: Final = 200
"""SIMs or contexts that one command speaks of: a command costs the script as much as some of its fields."""

FENCED: Final = f"""
local held = redis.call('HMGET', KEYS[1], 'version', 'stamp')
local fence = tonumber(held[1] or '-1')
if held[2] ~= ARGV[2] and held[2] ~= ARGV[3] then return 0 end
if tonumber(ARGV[1]) < fence then return 0 end
redis.call('HSET', KEYS[1], 'stamp', ARGV[4])
if ARGV[5] == '1' then redis.call('HSET', KEYS[1], 'version', ARGV[1]) end
local tick = redis.call('HINCRBY', '{META}', 'tick', 1)
local sub = string.sub

local function mark(day, id, used)
  local value = redis.call('HGET', day.key, id)
  local hours = value and struct.unpack('<I4', value) or 0
  hours = used and bit.bor(hours, day.bit) or bit.band(hours, bit.bnot(day.bit))
  if hours == 0 then redis.call('HDEL', day.key, id)
  else redis.call('HSET', day.key, id, struct.pack('<I4', hours)) end
  day.moved = true
end

local function begun(day, ids)
  local held, fields = redis.call('HMGET', day.key, unpack(ids)), {{}}
  for number, id in ipairs(ids) do
    local hours = held[number] and struct.unpack('<I4', held[number]) or 0
    fields[2 * number - 1], fields[2 * number] = id, struct.pack('<I4', bit.bor(hours, day.bit))
  end
  redis.call('HSET', day.key, unpack(fields))
  day.moved = true
end

local function note(day, rows, others, used)
  local there = {{}}
  for from = 1, #others, {CELL_BYTES} do there[sub(others, from, from + {ID_BYTES - 1})] = true end
  for from = 1, #rows, {CELL_BYTES} do
    local id = sub(rows, from, from + {ID_BYTES - 1})
    if not there[id] then mark(day, id, used) end
  end
end

local function noting(text)
  local hour, expiry, key, list, member = string.match(text, '^(%d+) (%d+)\\n(.*)\\n(.*)\\n(.*)$')
  if hour then
    return {{bit = bit.lshift(1, hour), expiry = expiry, key = key, list = list, member = member}}
  end
end

local function noted(day)
  if day and day.moved then
    redis.call('EXPIREAT', day.key, day.expiry)
    if day.list ~= '' then redis.call('ZADD', day.list, tick, day.member) end
  end
end

local at = 6
while at <= #ARGV do
  local op, key, value = ARGV[at], ARGV[at + 1], ARGV[at + 3]
  if op == 'cells' then
    local day = noting(ARGV[at + 2])
    local from = 1
    while from <= #value do
      local sims, fields = {{}}, {{}}
      repeat
        local sim = sub(value, from, from + {SIM_BYTES - 1})
        local cells = sub(value, from + {SIM_BYTES}, from + {SIM_BYTES + CELL_BYTES - 1})
        from = from + {SIM_BYTES + CELL_BYTES}
        if sub(value, from, from + {SIM_BYTES - 1}) == sim then
          local rows = {{cells}}
          repeat
            rows[#rows + 1] = sub(value, from + {SIM_BYTES}, from + {SIM_BYTES + CELL_BYTES - 1})
            from = from + {SIM_BYTES + CELL_BYTES}
          until sub(value, from, from + {SIM_BYTES - 1}) ~= sim
          cells = table.concat(rows)
        end
        local number = #sims + 1
        sims[number], fields[2 * number - 1], fields[2 * number] = sim, sim, cells
      until #sims == {MANY} or from > #value
      if day then
        local held, fresh = redis.call('HMGET', key, unpack(sims)), {{}}
        for number = 1, #sims do
          local was, cells = held[number] or '', fields[2 * number]
          local id = #cells == {CELL_BYTES} and sub(cells, 1, {ID_BYTES})
          if id and was == '' then fresh[#fresh + 1] = id
          elseif not (id and #was == {CELL_BYTES} and sub(was, 1, {ID_BYTES}) == id) then
            note(day, cells, was, true)
            note(day, was, cells, false)
          end
        end
        if #fresh > 0 then begun(day, fresh) end
      end
      redis.call('HSET', key, unpack(fields))
    end
    noted(day)
  elseif op == 'gone' then
    local day = noting(ARGV[at + 2])
    for from = 1, #value, {SIM_BYTES} do
      local sim = sub(value, from, from + {SIM_BYTES - 1})
      if day then note(day, redis.call('HGET', key, sim) or '', '', false) end
      redis.call('HDEL', key, sim)
    end
    noted(day)
  elseif op == 'forget' then
    for _, number in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      redis.call('UNLINK', ARGV[at + 2] .. number)
    end
    redis.call('UNLINK', key)
  elseif op == 'wipe' then redis.call('UNLINK', key)
  elseif op == 'swap' then
    if redis.call('EXISTS', ARGV[at + 2]) == 1 then redis.call('RENAME', ARGV[at + 2], key)
    else redis.call('UNLINK', key) end
  elseif op == 'set' then redis.call('HSET', key, ARGV[at + 2], value)
  elseif op == 'del' then redis.call('HDEL', key, ARGV[at + 2])
  elseif op == 'before' then
    for _, field in ipairs(redis.call('HKEYS', key)) do
      local start = string.match(field, ARGV[at + 2])
      if start and start < value then redis.call('HDEL', key, field) end
    end
  elseif op == 'unlist' then redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. value)
  elseif op == 'unmove' then
    local days, first = string.match(ARGV[at + 2], '^(%D+)(%d+)$')
    for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      local day, hour = string.match(member, '^' .. days .. '(%d+)$'), tonumber(member)
      local ended = hour and hour < tonumber(value) or day and tonumber(day) < tonumber(first)
      if ended then redis.call('ZREM', key, member) end
    end
  elseif op == 'tag' then redis.call('SADD', key, ARGV[at + 2])
  elseif op == 'move' then redis.call('ZADD', key, tick, ARGV[at + 2])
  elseif op == 'contexts' then
    local from, fields = 1, {{}}
    for context in string.gmatch(value, '[^\\n]+') do
      fields[#fields + 1] = sub(ARGV[at + 2], from, from + {ID_BYTES - 1})
      fields[#fields + 1] = context
      from = from + {ID_BYTES}
      if #fields == {2 * MANY} then
        redis.call('HSET', key, unpack(fields))
        fields = {{}}
      end
    end
    if #fields > 0 then redis.call('HSET', key, unpack(fields)) end
  elseif op == 'list' then redis.call('ZADD', key, value, value)
  elseif op == 'hour' then
    local hour, expiry = string.match(value, '(%d+) (%d+)')
    if redis.call('EXPIREAT', ARGV[at + 2], expiry) == 1 then
      redis.call('ZADD', key, hour, hour)
    else
      redis.call('ZREM', key, hour)
    end
  else return redis.error_reply('unknown operation ' .. op)
  end
  at = at + 4
end
return 1
"""
