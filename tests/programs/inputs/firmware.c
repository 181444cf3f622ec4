/* No headers: the compiler finds no files here. */
typedef unsigned char u8;
typedef unsigned int u16;
typedef unsigned long u32;

u32 crc32(const u8 *p, u16 n)
{
    u32 crc = 0xffffffffUL;
    while (n--) {
        crc ^= *p++;
        for (u8 k = 0; k < 8; k++)
            crc = (crc >> 1) ^ (0xedb88320UL & (0 - (crc & 1)));
    }
    return ~crc;
}

static volatile u8 *const port = (volatile u8 *)0x25;

int main(void)
{
    u8 n = 0;
    for (;;) {
        *port = n ^ (n >> 1); /* Gray code */
        if (++n == 200)
            n = 0;
    }
}
