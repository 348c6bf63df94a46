// node-postgres: the line of docs/clients.md is code. One pool, as programs have it; every client of it is a new one.
const { Pool } = require('pg')

const pool = eval(process.env.NODE_POSTGRES)
pool.on('error', () => {})

async function connect() {
  try {
    const client = await pool.connect()
    try {
      const { rows } = await client.query({ text: process.env.QUERY, rowMode: 'array' })
      console.log('node-postgres ok', rows[0][0])
    } finally {
      client.release(true)
    }
  } catch (error) {
    console.log('node-postgres failed', String(error.message).replace(/\s+/g, ' '))
  }
}

async function main() {
  for (let n = 0; n < Number(process.env.TIMES); n++) {
    await connect()
    await new Promise((resolve) => setTimeout(resolve, 500))
  }
}

main()
