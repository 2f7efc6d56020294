-- What every script begins with: the record, the server's clock, and the rules several arrows share.
-- Loaded in front of each of the other files; no script of its own.
local record = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function whole(n) return string.format('%.0f', n) end
local function get(field) return redis.call('HGET', record, field) end
-- What is no number is damage, not 0: an expiry of 0 would end the drop.
local function number(field)
  local value = tonumber(get(field) or '0')
  if not value then error('DAMAGED ' .. field) end
  return value
end
local function set(...) redis.call('HSET', record, ...) end
local function remove(...) redis.call('HDEL', record, ...) end

-- Every change of state, every renewal: whoever looked at the volume before must look again.
local function changed() redis.call('HINCRBY', record, 'revision', 1) end

-- A record outlives its drop by the tombstone time, and then Redis forgets it.
local function forget_at(at_ms) redis.call('PEXPIREAT', record, whole(at_ms)) end

local function answer(word) return {word, whole(now), redis.call('HGETALL', record)} end

-- Claims: one field each, JSON with string values (cjson would round large numbers).
local function claim_get(hash)
  local text = get('claim:' .. hash)
  if not text then return nil end
  return cjson.decode(text)
end

local function claim_set(hash, claim) set('claim:' .. hash, cjson.encode(claim)) end

local function claim_new(lease_seconds)
  return {started = whole(now), deadline = whole(now + lease_seconds * 1000), ranges = ''}
end

local function claim_hashes()
  local hashes = {}
  for _, field in ipairs(redis.call('HKEYS', record)) do
    if string.sub(field, 1, 6) == 'claim:' then hashes[#hashes + 1] = string.sub(field, 7) end
  end
  return hashes
end

-- A closed claim leaves its hash behind: it can never be used again.
local function claim_close_for_good(hash)
  remove('claim:' .. hash)
  set('lapsed:' .. hash, whole(now))
end

-- Union of two interval lists "0-10 20-30", half open, sorted; at most 64 are kept.
local function union(a, b)
  local list = {}
  for start, stop in string.gmatch(a .. ' ' .. b, '(%d+)-(%d+)') do
    list[#list + 1] = {tonumber(start), tonumber(stop)}
  end
  table.sort(list, function(x, y) return x[1] < y[1] end)
  local merged = {}
  for _, interval in ipairs(list) do
    local last = merged[#merged]
    if last and interval[1] <= last[2] then
      last[2] = math.max(last[2], interval[2])
    elseif interval[2] > interval[1] then
      merged[#merged + 1] = {interval[1], interval[2]}
    end
  end
  local parts, bytes = {}, 0
  for i = 1, math.min(#merged, 64) do
    parts[i] = whole(merged[i][1]) .. '-' .. whole(merged[i][2])
    bytes = bytes + merged[i][2] - merged[i][1]
  end
  return table.concat(parts, ' '), bytes
end

local function covers(ranges, size) return size == 0 or ranges == '0-' .. whole(size) end

-- Acknowledged bytes of the claim that went furthest, for the receipt after the drop is gone.
local function note_progress(bytes)
  if bytes > number('acknowledged') then set('acknowledged', whole(bytes)) end
end

-- A tombstone: reason and times, the owner's digest, and how many bytes of how many arrived.
local KEPT = {revision = 1, owner_hash = 1, created_ms = 1, expires_ms = 1, claimed_ms = 1,
              size = 1, acknowledged = 1}
local function bury(reason)
  for _, field in ipairs(redis.call('HKEYS', record)) do
    if not KEPT[field] then remove(field) end
  end
  set('state', 'gone', 'reason', reason, 'gone_ms', whole(now))
  changed()
end

-- One download that was not used goes back.
local function give_back_download()
  set('downloads_left', whole(number('downloads_left') + 1), 'state', 'ready')
end

-- The last download of the drop is over: nothing is left to claim and nobody holds a claim.
local function used_up() return number('downloads_left') <= 0 and #claim_hashes() == 0 end

-- A claim whose every byte has arrived: the drop goes with the last one. Whether it went.
local function end_delivered(hash)
  claim_close_for_good(hash)
  local last = used_up()
  if last then bury('delivered') else changed() end
  return last
end
