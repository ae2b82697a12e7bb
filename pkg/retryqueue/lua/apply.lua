-- Applies records of one partition of the changelog, all or none, if the index still stands where the caller thinks.
-- KEYS: due, off, then for each operation the bucket of its member.
-- ARGV: the offset that the index must have ('' for none), the offset it has afterwards, then for each operation
--       member, due time in ms ('' removes the member), pointer to its record.
-- Returns {1, ''}, or {0, the offset that the index has}.
local have = redis.call('GET', KEYS[2]) or ''
if have ~= ARGV[1] then
  return {0, have}
end
local arg = 3
for k = 3, #KEYS do
  local member, due, pointer = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2]
  arg = arg + 3
  if due == '' then
    redis.call('ZREM', KEYS[1], member)
    redis.call('HDEL', KEYS[k], member)
  else
    -- A member that waits keeps its due time or its lease; the pointer follows the newest record of its key, because
    -- compaction removes the older ones.
    redis.call('ZADD', KEYS[1], 'NX', due, member)
    redis.call('HSET', KEYS[k], member, pointer)
  end
end
redis.call('SET', KEYS[2], ARGV[2])
return {1, ''}
