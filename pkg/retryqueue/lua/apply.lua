-- Applies records of one partition of the changelog, all or none, if the index still stands where the caller thinks.
-- KEYS: due, off, then for each operation the bucket of its member.
-- ARGV: the offset that the index must have ('' for none), the offset it has afterwards, then for each operation
--       member, due time in ms ('' removes the member), pointer to its record.
-- Returns {1, ''}, or {0, the offset that the index has}.
local have = redis.call('GET', KEYS[2]) or ''
if have ~= ARGV[1] then
  return {0, have}
end
-- Neighbours of one kind go to the sorted set in one call, a member once.
local added, removed, buckets, once = {}, {}, {}, {}
local function flush()
  if #added > 0 then
    -- A member that waits keeps its due time or its lease.
    redis.call('ZADD', KEYS[1], 'NX', unpack(added))
  end
  -- What an acknowledgement has removed has no pointer either.
  if #removed > 0 and redis.call('ZREM', KEYS[1], unpack(removed)) > 0 then
    for i, member in ipairs(removed) do
      redis.call('HDEL', buckets[i], member)
    end
  end
  added, removed, buckets, once = {}, {}, {}, {}
end
local arg = 3
for k = 3, #KEYS do
  local member, due, pointer = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2]
  arg = arg + 3
  local other = due == '' and added or removed
  if #other > 0 or once[member] or #added + #removed >= 1000 then
    flush()
  end
  once[member] = true
  if due == '' then
    removed[#removed + 1] = member
    buckets[#buckets + 1] = KEYS[k]
  else
    added[#added + 1] = due
    added[#added + 1] = member
    -- The pointer follows the newest record of its key, because compaction removes the older ones.
    redis.call('HSET', KEYS[k], member, pointer)
  end
end
flush()
redis.call('SET', KEYS[2], ARGV[2])
return {1, ''}
