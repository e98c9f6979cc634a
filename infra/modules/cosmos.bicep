// The store: docs/store.md. Containers, keys, indexes and times to live are those of deployr_serve/adapters/cosmos_layout.py.
param name string
param location string
param tags object
param isPrivate bool
param maxThroughput int
param principalId string
param workspaceId string

var databaseName = 'deployr'

resource account 'Microsoft.DocumentDB/databaseAccounts@2024-11-15' = {
  name: name
  location: location
  tags: tags
  kind: 'GlobalDocumentDB'
  properties: {
    databaseAccountOfferType: 'Standard'
    // With several write regions two of them could each create the same packet.
    enableMultipleWriteLocations: false
    consistencyPolicy: { defaultConsistencyLevel: 'Session' }
    locations: [{ locationName: location, failoverPriority: 0, isZoneRedundant: isPrivate }]
    disableLocalAuth: true
    disableKeyBasedMetadataWriteAccess: true
    minimalTlsVersion: 'Tls12'
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    enableBurstCapacity: true
    backupPolicy: {
      type: 'Continuous'
      continuousModeProperties: { tier: isPrivate ? 'Continuous30Days' : 'Continuous7Days' }
    }
  }
}

resource database 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases@2024-11-15' = {
  name: databaseName
  parent: account
  tags: tags
  properties: {
    resource: { id: databaseName }
    // Shared by both containers: what the one does not use, the other may.
    options: { autoscaleSettings: { maxThroughput: maxThroughput } }
  }
}

resource packets 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers@2024-11-15' = {
  name: 'packets'
  parent: database
  tags: tags
  properties: {
    resource: {
      id: 'packets'
      partitionKey: { paths: ['/packet_id'], kind: 'Hash', version: 2 }
      defaultTtl: -1
      indexingPolicy: {
        indexingMode: 'consistent'
        automatic: true
        includedPaths: [
          { path: '/packet_id/?' }
          { path: '/model_id/?' }
          { path: '/started_at/?' }
          { path: '/patient/?' }
          { path: '/labelled_by/?' }
          { path: '/labelled/[]/?' }
          { path: '/due/?' }
          { path: '/state/?' }
          { path: '/delivery_id/?' }
          { path: '/label_of/?' }
          { path: '/label_id/?' }
          { path: '/attached_at/?' }
          { path: '/shown_at/?' }
          { path: '/shown_id/?' }
        ]
        excludedPaths: [{ path: '/*' }]
        compositeIndexes: [
          [{ path: '/model_id', order: 'ascending' }, { path: '/packet_id', order: 'ascending' }]
          [{ path: '/patient', order: 'ascending' }, { path: '/packet_id', order: 'ascending' }]
          [{ path: '/state', order: 'ascending' }, { path: '/delivery_id', order: 'ascending' }]
          [{ path: '/label_of', order: 'ascending' }, { path: '/label_id', order: 'ascending' }]
          [{ path: '/label_of', order: 'ascending' }, { path: '/packet_id', order: 'ascending' }]
        ]
      }
    }
  }
}

resource records 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers@2024-11-15' = {
  name: 'records'
  parent: database
  tags: tags
  properties: {
    resource: {
      id: 'records'
      partitionKey: { paths: ['/id'], kind: 'Hash', version: 2 }
      defaultTtl: -1
      indexingPolicy: {
        indexingMode: 'consistent'
        automatic: true
        includedPaths: [{ path: '/kind/?' }]
        excludedPaths: [{ path: '/*' }]
        compositeIndexes: []
      }
    }
  }
}

var cosmosDataContributor = '00000000-0000-0000-0000-000000000002'

// Of the account's data plane: no Azure role gives it, and the app can neither make nor drop containers by it.
resource writer 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2024-11-15' = {
  name: guid(account.id, principalId, cosmosDataContributor)
  parent: account
  properties: {
    principalId: principalId
    roleDefinitionId: '${account.id}/sqlRoleDefinitions/${cosmosDataContributor}'
    scope: account.id
  }
}

resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-workspace'
  scope: account
  properties: {
    workspaceId: workspaceId
    logAnalyticsDestinationType: 'Dedicated'
    // Not the data plane's: a line for each request, and queries with what they ask for.
    logs: [
      { category: 'ControlPlaneRequests', enabled: true }
      { category: 'PartitionKeyRUConsumption', enabled: true }
    ]
    metrics: [{ category: 'Requests', enabled: true }]
  }
}

output id string = account.id
output endpoint string = 'https://${account.name}.documents.azure.com'
output database string = databaseName
